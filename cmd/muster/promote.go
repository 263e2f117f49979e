// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/events"
)

type promoteFlags struct {
	out   outputFlag
	files []string
	dir   string
	write bool
}

// promotion is the JSON of muster promote.
type promotion struct {
	*events.Soak

	File string `json:"file"`
	// The change of the label, unless the mode is that of the whole host.
	Line int    `json:"line,omitempty"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
	Done bool   `json:"done"`
}

func newPromoteCmd() *cobra.Command {
	var f promoteFlags
	cmd := &cobra.Command{
		Use:   "promote POLICY",
		Short: "Show what a policy in audit mode would have denied, and enforce it",
		Long: `Reads the events that a policy with the label ` + enforce.ModeLabel + `: audit left behind on this host, counts what would have
been denied by rule, resource and program, and shows the change of the policy that enforces it. With --write the
change is made in the working tree, to be committed and published as any other.

What is told is what would have been denied if this policy alone were enforced beside all others: what an Allow that
outranks its Blocks lets through is not, and what its own Allows leave to a default posture of block is, as
DefaultPosture. Only events of the policy as it stands in the directory count, since it was put in audit.

On a host whose whole mode is audit the events tell what all policies together would have denied; the policy needs no
label there, and what enforces it is the mode in the host's musterd.yaml.

The event file and its rotated copies are read; give --events with the files of several hosts to see them together.
What the agent lost or rotated away is not in them, and neither is what nobody tried: muster status tells of losses.`,
		Example: "  muster promote --policies . protect-certificates\n  muster promote --events web-1.jsonl --events web-2.jsonl --write protect-certificates",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.out.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "policies", ".", "directory with the policies")
	fl.StringArrayVar(&f.files, "events", []string{config.Default().Events.File}, "event file, with its rotated copies; may be given several times")
	fl.BoolVar(&f.write, "write", false, "make the change in the policy's file")
	_ = cmd.MarkFlagDirname("policies")
	cmd.ValidArgsFunction = first(policiesIn(&f.dir))
	_ = cmd.MarkFlagFilename("events", "jsonl")
	return cmd
}

func (f *promoteFlags) run(cmd *cobra.Command, name string) error {
	policy, root, err := f.policy(name)
	if err != nil {
		return err
	}
	soak := events.NewSoak(policy.ID, enforce.PolicyVersion(policy))
	for _, file := range f.files {
		if err := readEventFiles(soak, file); err != nil {
			return hinted("muster promote --events FILE, with the host's event file", "%w", err)
		}
	}
	soak.Sort()
	result := promotion{Soak: soak, File: filepath.Join(root, policy.Position.File)}
	switch labelled := policy.Labels[enforce.ModeLabel] == string(enforce.ModeAudit); {
	case labelled:
		if err := f.change(policy, &result); err != nil {
			return err
		}
	case !soak.Whole():
		return hinted(fmt.Sprintf("give the policy the label %s: audit, or the events of a host whose mode is audit", enforce.ModeLabel),
			"policy %s is not in audit mode, and no event says that a host is in audit mode with it as it stands here", name)
	case f.write:
		return hinted("set mode: enforce in the musterd.yaml of "+strings.Join(wholeHosts(soak), ", "),
			"policy %s has no label to change: it is the host that is in audit mode", name)
	}
	return f.out.write(cmd.OutOrStdout(), result, func(w io.Writer) { printPromotion(w, result) })
}

// change is that of the label, made if asked for.
func (f *promoteFlags) change(policy *policies.Policy, result *promotion) error {
	text, err := os.ReadFile(result.File)
	if err != nil {
		return err
	}
	change, err := policies.Relabel(policy.Position.File, text, policy.ID, enforce.ModeLabel, string(enforce.ModeEnforce))
	if err != nil {
		return err
	}
	result.Line, result.Old, result.New, result.Done = change.Line, change.Old, change.New, f.write
	if !f.write {
		return nil
	}
	info, err := os.Stat(result.File)
	if err != nil {
		return err
	}
	return bundles.WriteAtomic(result.File, change.Text, info.Mode().Perm())
}

// wholeHosts are those that enforce nothing at all.
func wholeHosts(soak *events.Soak) []string {
	var list []string
	for _, h := range soak.Hosts {
		if h.Whole {
			list = append(list, cmp.Or(h.Host, "the host"))
		}
	}
	return list
}

// policy finds the one policy of this name, and where the policies lie.
func (f *promoteFlags) policy(name string) (*policies.Policy, string, error) {
	set, root, err := parsePolicies(f.dir)
	if err != nil {
		return nil, "", err
	}
	var found []*policies.Policy
	for _, p := range set.Policies() {
		if p.Name == name || reconciler.PolicyName(p.ID) == name {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], root, nil
	case 0:
		return nil, "", hinted("give the directory with --policies", "no policy %s in %s", name, f.dir)
	default:
		return nil, "", hinted("name it as "+reconciler.PolicyName(found[0].ID), "%d policies are called %s", len(found), name)
	}
}

// readEventFiles reads a file and the copies that rotation made of it: NAME-TIME.EXT, and .gz behind it.
func readEventFiles(soak *events.Soak, file string) error {
	ext := filepath.Ext(file)
	copies, err := filepath.Glob(strings.TrimSuffix(file, ext) + "-*" + ext + "*")
	if err != nil {
		return fmt.Errorf("event files: %w", err)
	}
	slices.Sort(copies)
	read := 0
	for _, name := range append(copies, file) {
		switch err := readEventFile(soak, name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			read++
		}
	}
	if read == 0 {
		return fmt.Errorf("event file %s: %w", file, fs.ErrNotExist)
	}
	return nil
}

func readEventFile(soak *events.Soak, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	var r io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			return fmt.Errorf("event file %s: %w", name, err)
		}
	}
	return soak.Read(r)
}

func printPromotion(w io.Writer, p promotion) {
	name := printable(p.Policy)
	printSoaked(w, p.Soak)
	if p.Operations > 0 {
		fmt.Fprintf(w, "%s would have denied %d operations from %s to %s:\n\n", name, p.Operations, when(p.Since), when(p.Until))
		rows := [][]string{{"RULE", "OPERATION", "RESOURCE", "BY", "TIMES", "LAST"}}
		for _, r := range p.Rows {
			resource := r.Resource
			if resource == "" {
				resource = "(several)"
			}
			rows = append(rows, []string{r.Rule, r.Operation, resource, r.Source, strconv.FormatUint(r.Count, 10), when(r.Last)})
		}
		table(w, rows)
	}
	if p.Others > 0 {
		fmt.Fprintf(w, "\nNot counted: %d operations of other versions of the policy, or of agents that do not say which.\n", p.Others)
	}
	switch {
	case p.New == "":
		fmt.Fprintf(w, "\nTo enforce it: mode: enforce in the musterd.yaml of %s. That enforces every policy there.\n", printable(strings.Join(wholeHosts(p.Soak), ", ")))
		return
	case p.Done:
		printChange(w, p)
		fmt.Fprintf(w, "\nDone. Next: git commit -m 'Enforce %s' -- %s, and muster publish.\n", name, printable(p.File))
	default:
		printChange(w, p)
		fmt.Fprintf(w, "\nTo make this change: muster promote --write %s\n", name)
	}
}

func printChange(w io.Writer, p promotion) {
	fmt.Fprintf(w, "\n--- a/%s\n+++ b/%s\n@@ -%d +%d @@\n-%s\n+%s\n", printable(p.File), printable(p.File), p.Line, p.Line, printable(p.Old), printable(p.New))
}

// printSoaked says what the answer rests on: nothing is no all-clear.
func printSoaked(w io.Writer, s *events.Soak) {
	name := printable(s.Policy)
	if len(s.Hosts) == 0 {
		fmt.Fprintf(w, "WARNING: no event says that %s, as it stands here (version %s), is in audit on any host. What it would deny is not known.\n", name, s.Version)
		return
	}
	for _, h := range s.Hosts {
		since := "at a time that its events do not tell"
		if !h.Begun.IsZero() {
			since = when(h.Begun)
		}
		what := "in audit"
		if h.Whole {
			what = "on a host in audit, with all other policies,"
		}
		fmt.Fprintf(w, "%s: %s since %s, last event at %s, %d operations.", printable(cmp.Or(h.Host, "(no host name)")), what, since, when(h.Last), h.Operations)
		if h.Ended {
			fmt.Fprint(w, " No longer.")
		}
		fmt.Fprintln(w)
	}
	if s.Operations == 0 {
		fmt.Fprintf(w, "In that time %s would have denied nothing that its events tell of.\n", name)
	}
	fmt.Fprint(w, "Not known: what nobody tried in that time, and what was lost or rotated away (muster status).\n\n")
}
