// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/events"
)

// completion proposes words for the shell. What cannot be found out proposes nothing: nobody reads errors there.
type completion = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// first proposes for the first argument only.
func first(propose completion) completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return propose(cmd, args, word)
	}
}

// policiesIn proposes the names of the policies of a directory.
func policiesIn(dir *string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		set, _, err := parsePolicies(*dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, p := range set.Policies() {
			names = append(names, p.Name, reconciler.PolicyName(p.ID))
		}
		return unique(names), cobra.ShellCompDirectiveNoFileComp
	}
}

// policiesHere proposes the names of the policies that the agent on this host enforces.
func policiesHere(f *agentFlags) completion {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		facts, err := f.client().Rulesets(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := []string{events.DefaultPosture}
		for _, rs := range facts.Rulesets {
			for i := range rs.Rules {
				names = append(names, rs.Rules[i].Policy.Name)
			}
		}
		return unique(names), cobra.ShellCompDirectiveNoFileComp
	}
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// revisionsIn proposes the branches and tags of a repository.
func revisionsIn(dir *string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		repo, err := git.OpenRepository(*dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := repo.Names()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return append([]string{"HEAD"}, names...), cobra.ShellCompDirectiveNoFileComp
	}
}
