// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	Line int    `json:"line"`
	Old  string `json:"old"`
	New  string `json:"new"`
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

The event file and its rotated copies are read; give --events with the files of several hosts to see them together.
What the agent lost or rotated away is not in them: muster status tells of losses.`,
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
	if mode := policy.Labels[enforce.ModeLabel]; mode != string(enforce.ModeAudit) {
		return hinted(fmt.Sprintf("only a policy with the label %s: audit can be promoted; the mode of a whole host is in its musterd.yaml", enforce.ModeLabel),
			"policy %s is not in audit mode", name)
	}
	path := filepath.Join(root, policy.Position.File)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	change, err := policies.Relabel(policy.Position.File, text, policy.ID, enforce.ModeLabel, string(enforce.ModeEnforce))
	if err != nil {
		return err
	}
	soak := events.NewSoak(policy.Name)
	for _, file := range f.files {
		if err := readEventFiles(soak, file); err != nil {
			return hinted("muster promote --events FILE, with the host's event file", "%w", err)
		}
	}
	soak.Sort()
	result := promotion{Soak: soak, File: path, Line: change.Line, Old: change.Old, New: change.New, Done: f.write}
	if f.write {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := bundles.WriteAtomic(path, change.Text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return f.out.write(cmd.OutOrStdout(), result, func(w io.Writer) { printPromotion(w, result) })
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
	if p.Operations == 0 {
		fmt.Fprintf(w, "No event says that %s would have denied anything.\n", printable(p.Policy))
	} else {
		fmt.Fprintf(w, "%s would have denied %d operations from %s to %s:\n\n", printable(p.Policy), p.Operations, when(p.Since), when(p.Until))
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
	fmt.Fprintf(w, "\n--- a/%s\n+++ b/%s\n@@ -%d +%d @@\n-%s\n+%s\n", printable(p.File), printable(p.File), p.Line, p.Line, printable(p.Old), printable(p.New))
	if p.Done {
		fmt.Fprintf(w, "\nDone. Next: git commit -m 'Enforce %s' -- %s, and muster publish.\n", printable(p.Policy), printable(p.File))
	} else {
		fmt.Fprintf(w, "\nTo make this change: muster promote --write %s\n", printable(p.Policy))
	}
}
