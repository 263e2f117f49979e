// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/events"
)

type logsFlags struct {
	agentFlags
	follow, visible       bool
	file                  string
	policies, actions, op []string
	lines                 int
}

func newLogsCmd() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs [-f]",
		Short: "Show what was denied and audited on this host",
		Long: "Prints the newest events of the agent's event file, and with -f those to come. -o json prints the records\n" +
			"as they are, one a line, with KubeArmor's field names. What visibility adds is left out but with --visible.",
		Example: "  muster logs -f --policy protect-shadow\n  muster logs -o json | jq -r .Resource | sort | uniq -c",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with the events to come")
	fl.BoolVar(&f.visible, "visible", false, "also what no rule is about, of the classes that visibility names in the configuration")
	fl.StringVar(&f.file, "file", config.Default().Events.File, "event file")
	fl.StringSliceVar(&f.policies, "policy", nil, "only events of these policies")
	fl.StringSliceVar(&f.actions, "action", nil, "only events with these actions, such as Block")
	fl.StringSliceVar(&f.op, "operation", nil, "only events of these operations, such as Process")
	fl.IntVarP(&f.lines, "lines", "n", 20, "how many of the events before now to show")
	_ = cmd.MarkFlagFilename("file", "jsonl")
	_ = cmd.RegisterFlagCompletionFunc("policy", policiesHere(&f.agentFlags))
	_ = cmd.RegisterFlagCompletionFunc("operation", cobra.FixedCompletions(events.Operations(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"Block", "Audit", "Audit (Block)"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *logsFlags) run(ctx context.Context, out io.Writer) error {
	if f.out.value != "json" && f.out.value != "text" {
		return fmt.Errorf("output %q is not text or json", f.out.value)
	}
	if f.lines > 0 {
		if err := f.past(out); err != nil && (!f.follow || !errors.Is(err, fs.ErrNotExist)) {
			return hinted("give --file when the configuration names another event file; -f needs none", "%w", err)
		}
	}
	if !f.follow {
		return nil
	}
	return f.client().Events(ctx, func(line []byte) error {
		if f.wants(line) {
			return f.print(out, line)
		}
		return nil
	})
}

// past prints the newest events of the file.
func (f *logsFlags) past(out io.Writer) error {
	file, err := os.Open(f.file)
	if err != nil {
		return err
	}
	defer file.Close()
	var newest [][]byte
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for scanner.Scan() {
		if !f.wants(scanner.Bytes()) {
			continue
		}
		if len(newest) == f.lines {
			newest = newest[1:]
		}
		newest = append(newest, slices.Clone(scanner.Bytes()))
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("event file: %w", err)
	}
	for _, line := range newest {
		if err := f.print(out, line); err != nil {
			return err
		}
	}
	return nil
}

// wants is true for lines that the filters let through; what is no record is none of ours.
func (f *logsFlags) wants(line []byte) bool {
	var r events.Record
	if json.Unmarshal(line, &r) != nil {
		return false
	}
	in := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	return (r.Alert() || f.visible && r.Type != "SystemEvent") && in(f.policies, r.PolicyName) && in(f.actions, r.Action) && in(f.op, r.Operation)
}

func (f *logsFlags) print(out io.Writer, line []byte) error {
	if f.out.value == "json" {
		_, err := fmt.Fprintf(out, "%s\n", line)
		return err
	}
	var r events.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	if r.Resource == "" && r.EventData.Example != "" {
		r.Resource = r.EventData.Example + " and others"
	}
	if !r.Alert() {
		r.Action, r.PolicyName = "Seen", "visibility"
	}
	parts := []string{r.UpdatedTime, r.Action, r.PolicyName + ":", r.Operation, r.Resource, "by", r.Source, fmt.Sprintf("(pid %d, uid %d)", r.HostPID, r.UID), r.Result}
	if r.Count > 1 {
		parts = append(parts, fmt.Sprintf("%d times since %s", r.Count, r.EventData.Since))
	}
	if r.Severity != "" {
		parts = append(parts, "severity "+r.Severity)
	}
	if r.Message != "" {
		parts = append(parts, "- "+r.Message)
	}
	_, err := fmt.Fprintln(out, printable(strings.Join(parts, " ")))
	return err
}
