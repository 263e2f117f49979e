// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// resumeResult is the JSON of muster resume.
type resumeResult struct {
	Resumed bool `json:"resumed"`
}

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
			return f.out.write(cmd.OutOrStdout(), resumeResult{Resumed: true}, func(w io.Writer) { fmt.Fprintln(w, "resumed") })
		},
	}
	f.register(cmd)
	return cmd
}
