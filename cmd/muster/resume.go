// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newResumeCmd() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:     "resume",
		Short:   "End a suspension; what is declared is put into force at once",
		Long:    "Ends what muster suspend began, before its time. Without a suspension it does nothing.",
		Example: "  muster resume",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.client().Resume(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "resumed")
			return nil
		},
	}
	f.register(cmd)
	return cmd
}
