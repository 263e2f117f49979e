// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/scaffold"
)

func newInitCmd() *cobra.Command {
	var o scaffold.Options
	var dir string
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the first files of a policy repository",
		Long: "Writes muster.yaml, trust.yaml with thresholds of one, an example policy, the list of hosts and, with\n" +
			"--forge, a CI workflow. Files that are there already stay as they are.",
		Example: "  git init && muster init --fleet acme-prod --forge github\n  muster keys new $USER && git add . && git commit -m 'Start' && muster publish",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			abs, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			o.Fleet = cmp.Or(o.Fleet, scaffold.FleetName(abs))
			if repo, err := git.OpenRepository(dir); err == nil {
				if url, err := repo.RemoteURL(o.Remote); err == nil && o.Repository == "" {
					o.Repository = git.PublicURL(url)
				}
			}
			written, err := scaffold.Write(dir, o)
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), written, func(w io.Writer) {
				for _, f := range written {
					state := "wrote"
					if !f.New {
						state = "kept "
					}
					fmt.Fprintf(w, "%s  %s\n", state, f.Path)
				}
				fmt.Fprintln(w, "next: muster keys new, then git add, git commit, muster publish")
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", ".", "the repository's directory")
	f.StringVar(&o.Fleet, "fleet", "", "name of the fleet (default the directory's name)")
	f.StringVar(&o.Channel, "channel", "stable", "name of the channel")
	f.StringVar(&o.Forge, "forge", "", "write a CI workflow for github or gitlab")
	f.StringVar(&o.Remote, "remote", "origin", "name or URL of the remote to publish to")
	f.StringVar(&o.Repository, "repository", "", "URL of the source, written into each release (default the remote's)")
	out.register(cmd)
	_ = cmd.RegisterFlagCompletionFunc("forge", cobra.FixedCompletions([]string{"github", "gitlab"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
