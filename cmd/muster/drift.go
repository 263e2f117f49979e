// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler/control"
)

// driftResult is the JSON of muster drift.
type driftResult struct {
	Drift   []enforce.Drift  `json:"drift"`
	Repairs []control.Repair `json:"repairs"`
}

func newDriftCmd() *cobra.Command {
	var f agentFlags
	var failing bool
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Show where the kernel differs from what is declared",
		Long: "Makes the agent read the kernel now and lists each difference, and the differences that it found and\n" +
			"repaired since it started. With --exit-code it exits with 1 when something differs.",
		Example: "  muster drift\n  muster drift -o json | jq '.drift[] | select(.severity == \"high\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done := waiting(cmd.Context(), "waiting for the agent to read the kernel")
			plan, err := f.client().Plan(cmd.Context())
			done()
			if err != nil {
				return err
			}
			status, err := f.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			result := driftResult{Drift: plan.Drift, Repairs: status.Repairs}
			if err := f.out.write(cmd.OutOrStdout(), result, func(w io.Writer) { printDrift(w, result) }); err != nil {
				return err
			}
			if failing && len(result.Drift) > 0 {
				return fmt.Errorf("%d differences", len(result.Drift))
			}
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&failing, "exit-code", false, "exit with 1 when something differs")
	return cmd
}

func printDrift(w io.Writer, r driftResult) {
	if len(r.Drift) == 0 {
		fmt.Fprintln(w, "no drift: the kernel holds what is declared")
	} else {
		table(w, driftRows(r.Drift))
	}
	if len(r.Repairs) == 0 {
		return
	}
	fmt.Fprintln(w, "\nrepaired:")
	rows := [][]string{}
	for _, repair := range r.Repairs {
		d := repair.Drift
		rows = append(rows, []string{when(repair.Time), string(d.Kind), string(d.Subject), d.Declared, d.Observed})
	}
	table(w, rows)
}

func driftRows(list []enforce.Drift) [][]string {
	rows := [][]string{{"SEVERITY", "KIND", "SUBJECT", "POLICY", "DECLARED", "OBSERVED", "SINCE"}}
	for _, d := range list {
		policy := policyID(d.Policy)
		if d.Rule != nil {
			policy += fmt.Sprintf(" rule %d", *d.Rule)
		}
		rows = append(rows, []string{d.Severity, string(d.Kind), string(d.Subject), policy, d.Declared, d.Observed, when(d.Since)})
	}
	return rows
}
