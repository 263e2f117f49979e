// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
)

// project is a policy repository at one commit.
type project struct {
	*bundles.Project
	repo   *git.Repository
	commit *git.Commit
	trust  *bundles.Trust
	text   []byte            // of the trust file
	signed map[string][]byte // the bundles over it, when it succeeds another
	url    string
}

// openProject reads muster.yaml and the trust file out of the commit, never out of the working tree.
func openProject(dir, rev, remote string) (*project, error) {
	repo, err := git.OpenRepository(dir)
	if err != nil {
		return nil, hinted("run this inside a policy repository, or make one with git init and muster init", "%w", err)
	}
	p := &project{repo: repo}
	if p.commit, err = repo.Resolve(rev); err != nil {
		return nil, hinted("commit something first", "%w", err)
	}
	text, err := p.commit.File(bundles.ProjectFile)
	if err != nil {
		return nil, hinted("make the first files with muster init, and commit them", "%w", err)
	}
	if p.Project, err = bundles.LoadProject(text); err != nil {
		return nil, err
	}
	if p.text, err = p.commit.File(p.Trust); err != nil {
		return nil, err
	}
	if p.trust, err = bundles.LoadTrust(p.text); err != nil {
		return nil, hinted("muster keys new adds a signer; commit trust.yaml afterwards", "%w", err)
	}
	if p.signed, err = p.commit.OptionalFiles(signaturesDir(p.Trust, p.trust.Version)); err != nil {
		return nil, err
	}
	if p.url, err = repo.RemoteURL(cmp.Or(remote, p.Remote)); err != nil {
		return nil, hinted("add it with git remote add, or give --remote", "%w", err)
	}
	return p, nil
}

// remembering is the project's channel for somebody who remembers what it showed before.
func (p *project) remembering(ch bundles.Channel, forget bool) (bundles.Channel, error) {
	dir, err := p.repo.StateDir()
	return bundles.Remembering(ch, bundles.NewChannelMemory(dir, p.url, p.trust.Channel, forget)), err
}

func (p *project) content() (bundles.Content, error) {
	files, err := p.commit.Files(p.Root)
	return bundles.Content{
		Files: files, Commit: p.commit.Hash, Repository: p.Repository, Issued: p.commit.When,
	}, err
}

// outputFlag is -o of the release verbs.
type outputFlag struct{ value string }

func (o *outputFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.value, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// write prints v as JSON, or whatever text prints.
func (o *outputFlag) write(w io.Writer, v any, text func(io.Writer)) error {
	switch o.value {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "text":
		text(w)
		return nil
	}
	return fmt.Errorf("output %q is not text or json", o.value)
}
