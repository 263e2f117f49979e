// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/policies"
)

func newSchemaCmd() *cobra.Command {
	var known []string
	for _, kind := range policies.Kinds() {
		known = append(known, string(kind))
	}
	return &cobra.Command{
		Use:   "schema KIND",
		Short: "Print the JSON Schema of a kind of policy, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of a kind of policy.

An editor that knows it completes fields and values and marks most mistakes while you type; "muster lint"
finds all of them. The schema is made from the very tables that the parser follows.`,
		Example: `  muster schema KubeArmorHostPolicy > host-policy.schema.json
  # then, as the first line of a policy file:
  # yaml-language-server: $schema=host-policy.schema.json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			schema, err := policies.Schema(policies.Kind(args[0]))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
