// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/reconciler/control"
)

func newSuspendCmd() *cobra.Command {
	var f agentFlags
	var reason string
	var lasting time.Duration
	cmd := &cobra.Command{
		Use:   "suspend --reason TEXT [--for 2h]",
		Short: "Hold this host where it is, for a while and with a reason",
		Long: "The kernel goes on enforcing what it holds; new releases are verified and remembered but not put into\n" +
			"force, and drift is reported but not repaired. The fleet's report says so, and why.",
		Example: "  muster suspend --reason 'database migration, INC-4711' --for 90m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.client().Suspend(cmd.Context(), control.SuspendRequest{Reason: reason, Until: time.Now().Add(lasting)})
			if err != nil {
				return err
			}
			return f.out.write(cmd.OutOrStdout(), s, func(w io.Writer) {
				fmt.Fprintf(w, "suspended until %s: %s\n", when(s.Until), printable(s.Reason))
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the fleet's report")
	cmd.Flags().DurationVar(&lasting, "for", 2*time.Hour, "how long, at most 720h")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}
