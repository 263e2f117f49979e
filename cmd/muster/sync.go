// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
)

func newSyncCmd() *cobra.Command {
	var f agentFlags
	var request control.SyncRequest
	var noWait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Look at the source now, and wait until the newest release is enforced or refused",
		Long: "Exits with 0 when the newest release is in force (or runs in audit, as its signatures or the host's mode\n" +
			"say), and with 1 when it was refused or could not be fetched or enforced.",
		Example: "  muster sync\n  muster sync --reload   # after editing /etc/muster",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Wait = !noWait
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			done := waiting(ctx, "waiting for the agent to look at its source")
			result, err := f.client().Sync(ctx, request)
			done()
			if err != nil {
				return err
			}
			if err := f.out.write(cmd.OutOrStdout(), result, func(w io.Writer) { printSync(w, result, request.Wait) }); err != nil {
				return err
			}
			noteRestart(cmd, result.Report)
			return syncError(result, request.Wait)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&request.Reload, "reload", false, "read configuration, labels and trust again first")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "only ask for it")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

func printSync(w io.Writer, r *control.SyncResult, waited bool) {
	if !waited {
		fmt.Fprintln(w, "the agent looks at its source")
		return
	}
	line := string(r.Outcome)
	if r.Release != nil {
		line += fmt.Sprintf(": release %d (%s)", r.Release.Sequence, shortDigest(r.Release.Digest))
	}
	if r.Outcome == control.OutcomeRefused && r.Release != nil {
		line = fmt.Sprintf("refused: revision %s; release %d (%s) stays in force", shortDigest(r.Revision), r.Release.Sequence, shortDigest(r.Release.Digest))
	}
	fmt.Fprintln(w, line)
}

// noteRestart says what a reload read and could not take up.
func noteRestart(cmd *cobra.Command, r *fleet.Report) {
	if r == nil {
		return
	}
	for _, c := range r.Conditions {
		if c.Type == fleet.ConditionRestartNeeded {
			fmt.Fprintf(cmd.ErrOrStderr(), "muster: warning: %s\n", printable(c.Message))
		}
	}
}

// syncError is nil when the newest release does what it should.
func syncError(r *control.SyncResult, waited bool) error {
	if !waited || r.Problem == nil {
		return nil
	}
	name := r.Problem.Name + ": "
	return hinted(r.Problem.Hint, "%s: %s%s", r.Outcome, name, strings.TrimPrefix(r.Problem.Message, name))
}
