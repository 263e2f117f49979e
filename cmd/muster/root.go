// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

//go:generate go test -run ^TestCommandsPage$ . -update

// newRootCmd returns the command tree; each verb has a file of its own.
func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:           "muster",
		Short:         "Put a fleet's Linux security policy under Git",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newInitCmd())
	root.AddCommand(newKeysCmd())
	root.AddCommand(newLintCmd())
	root.AddCommand(newPublishCmd())
	root.AddCommand(newApproveCmd())
	root.AddCommand(newVerifyCmd())
	root.AddCommand(newTrustCmd())
	root.AddCommand(newPullCmd())
	root.AddCommand(newBundleCmd())
	root.AddCommand(newJoinCmd())
	root.AddCommand(newSchemaCmd())
	root.AddCommand(newRollCmd())
	root.AddCommand(newFleetCmd())
	root.AddCommand(newPlanCmd())
	root.AddCommand(newDriftCmd())
	root.AddCommand(newExplainCmd())
	root.AddCommand(newStatusCmd())
	root.AddCommand(newLogsCmd())
	root.AddCommand(newPromoteCmd())
	root.AddCommand(newSyncCmd())
	root.AddCommand(newStandDownCmd())
	root.AddCommand(newSuspendCmd())
	root.AddCommand(newResumeCmd())
	root.SetFlagErrorFunc(misused)
	hintUsage(root)
	return root
}

// misused is the error of a call that is not understood.
func misused(cmd *cobra.Command, err error) error {
	return hinted("usage: "+cmd.UseLine()+"; "+cmd.CommandPath()+" --help has examples", "%w", err)
}

// hintUsage has every verb below cmd say how it is called when it has the wrong number of arguments.
func hintUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return misused(cmd, err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		hintUsage(sub)
	}
}
