// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler"
)

type explainFlags struct {
	agentFlags
	by  reconciler.Caller
	dir string
}

// explainResult is the JSON of muster explain.
type explainResult struct {
	Operation   enforce.Operation   `json:"operation"`
	Explanation enforce.Explanation `json:"explanation"`
	Ruleset     string              `json:"ruleset"`
	Mode        enforce.Mode        `json:"mode"`
	Held        string              `json:"held,omitempty"`
}

func newExplainCmd() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain [--source PROGRAM] -- OPERATION PATH [ARGUMENT...]",
		Short: "Say which rule decides an operation, and why",
		Long: "Decides the operation with the host's ruleset, or with the policies of a directory (--policies), by the same\n" +
			"function that the backends are tested against. Operations: " + strings.Join(reconciler.Operations(), " ") + ".",
		Example: "  muster explain --source /usr/bin/vim -- write /etc/ssl/certs/ca-certificates.crt\n  muster explain --policies ./policies -- exec /usr/bin/apt",
		Args:    cobra.MinimumNArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return reconciler.Operations(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.by.Source, "source", "", "executable of the process that tries it")
	fl.StringVar(&f.by.Script, "script", "", "script that the process was started from")
	fl.Uint32Var(&f.by.UID, "uid", 0, "user id of the process")
	fl.BoolVar(&f.by.Terminal, "tty", false, "the process has a controlling terminal")
	fl.StringVar(&f.dir, "policies", "", "decide by the policies of this directory")
	_ = cmd.MarkFlagDirname("policies")
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, args []string) error {
	offline, err := f.offline(cmd)
	if err != nil {
		return err
	}
	rulesets := offline.Facts.Rulesets
	if f.dir != "" {
		set, _, err := parsePolicies(f.dir)
		if err != nil {
			return err
		}
		rulesets, _, _ = offline.Compile(set)
	}
	if len(rulesets) == 0 {
		return hinted("muster sync, or give --policies DIR", "this host has no ruleset")
	}
	rs := rulesets[0]
	op, err := offline.ParseOperation(args, f.by, rs)
	if err != nil {
		return err
	}
	result := explainResult{Operation: op, Explanation: rs.Explain(op), Ruleset: rs.Digest(), Mode: rs.Mode, Held: rs.Held}
	return f.out.write(cmd.OutOrStdout(), result, func(w io.Writer) { printExplanation(w, args[0], result) })
}

func printExplanation(w io.Writer, word string, r explainResult) {
	source := r.Operation.Source.Executable
	if source == "" {
		source = "any program"
	}
	fmt.Fprintf(w, "%s %s by %s\n%s\n", word, printable(r.Operation.Path), printable(source), printable(r.Explanation.Why))
	rows := [][]string{}
	for _, rule := range r.Explanation.Rules {
		say := "fires"
		switch {
		case rule.Decides:
			say = "decides"
		case !rule.Fires:
			say = "silent: " + rule.Silent
		}
		at := fmt.Sprintf("%s:%d:%d", rule.Position.File, rule.Position.Line, rule.Position.Column)
		rows = append(rows, []string{string(rule.Action), reconciler.PolicyName(rule.Policy), at, rule.Matched, rule.Rank, say})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, rows)
	}
}
