// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/fleet/statusref"
	"github.com/muster-fleet/muster/reconciler/config"
)

// newFleetCmd groups the verbs that look at all hosts at once.
func newFleetCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Work on the reports of all hosts",
		Long:  "Hosts report to refs of their own in the status repository. These verbs fold them and look at them together.",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newFleetCollectCmd())
	return cmd
}

// fleetFlags say where the status is and whom to believe.
type fleetFlags struct {
	repo, prefix  string
	trust, policy string
	hosts         string
	config        string
	git           sourceFlags
	source        sourceFlags // for the release: the flags, or the agent's own credentials
}

func (f *fleetFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.repo, "repo", "", "status repository (default status.url of the agent's configuration)")
	fl.StringVar(&f.prefix, "prefix", statusref.PrefixHosts, "where the refs of hosts lie")
	fl.StringVar(&f.trust, "trust", "", "trust file (default that of the agent's configuration, then ./trust.yaml)")
	fl.StringVar(&f.policy, "policy", "", "release that lists the enrolled hosts: a directory or Git URL (default source.url of the agent's configuration)")
	fl.StringVar(&f.hosts, "hosts", "", "hosts.allowed_signers to use instead of the release's")
	fl.StringVar(&f.config, "config", "/etc/muster/musterd.yaml", "the agent's configuration, for defaults")
	_ = cmd.MarkFlagFilename("trust", "yaml")
	_ = cmd.MarkFlagFilename("hosts")
	_ = cmd.MarkFlagFilename("config", "yaml")
	_ = cmd.RegisterFlagCompletionFunc("prefix", cobra.FixedCompletions(
		[]string{statusref.PrefixHosts, statusref.PrefixHeads}, cobra.ShellCompDirectiveNoFileComp))
	f.git.register(cmd)
}

// defaults takes what was not given from the agent's configuration, on a host that has one.
func (f *fleetFlags) defaults() error {
	cfg, err := config.Load(f.config)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		cfg = &config.Config{}
	case err != nil:
		return err
	}
	f.source = f.git
	local := f.repo == "" || f.repo == cfg.Status.URL
	if local {
		f.repo = cfg.Status.URL
		if f.git == (sourceFlags{}) {
			f.git.git, f.source = cfg.Status.Credentials, sourceFlags{git: cfg.Source.Credentials, oci: cfg.Source.Credentials}
		}
	}
	if f.repo == "" {
		return hinted("give --repo URL", "no status repository is known")
	}
	if f.policy == "" && f.hosts == "" && local {
		f.policy = cfg.Source.URL
	}
	for _, path := range []string{cfg.Trust, "trust.yaml"} {
		if f.trust == "" && path != "" && fileExists(path) {
			f.trust = path
		}
	}
	return nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (f *fleetFlags) remote() (statusref.Remote, error) {
	r := statusref.Remote{URL: f.repo, Prefix: f.prefix}
	var err error
	if r.Auth, err = sources.Git(f.git.git).Auth(f.repo); err != nil {
		return r, err
	}
	r.CABundle, err = sources.Git(f.git.git).CABundle()
	return r, err
}

// enrolled reads who may report: from a file, or from a release that the trust file accepts.
func (f *fleetFlags) enrolled(ctx context.Context, trust *bundles.Trust, now time.Time) (*fleet.AllowedSigners, error) {
	if f.hosts != "" {
		text, err := os.ReadFile(f.hosts)
		if err != nil {
			return nil, err
		}
		return fleet.ParseAllowedSigners(f.hosts, text)
	}
	if f.policy == "" || trust == nil {
		return nil, nil // nobody is known to be enrolled, which AllowedSigners' methods understand
	}
	raw, err := f.source.fetch(ctx, f.policy, trust.Channel)
	if err != nil {
		return nil, err
	}
	v, err := bundles.Verify(raw, trust, bundles.Seen{}, now)
	if err != nil {
		return nil, err
	}
	return fleet.Enrolled(v.FS())
}

type collectFlags struct {
	fleetFlags
	key, passwordFile, name string
	lostAfter, removeAfter  time.Duration
	every                   time.Duration
	out                     outputFlag
}

func newFleetCollectCmd() *cobra.Command {
	var f collectFlags
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "Fold the hosts' reports into the status branch",
		Long: "Reads every host's ref, verifies each report against the enrolled hosts, and writes the branch \"status\":\n" +
			"README.md for people, roll.json (signed) for machines, hosts/ with the reports. Who loses a race against\n" +
			"another collector does nothing. Run it as a CI job, or with --every on one machine.",
		Example: "  muster fleet collect --repo https://git.example.com/status.git --policy https://git.example.com/policy.git --trust trust.yaml --key roll-1.key\n" +
			"  muster fleet collect --repo status.git --hosts hosts.allowed_signers --trust trust.yaml --key roll-1.key --every 1m",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	f.register(cmd)
	fl.StringVar(&f.key, "key", "", "the collector's private key: made by muster keys new or ssh-keygen")
	fl.StringVar(&f.passwordFile, "password-file", "", "file with the key's password (default $MUSTER_PASSWORD, $COSIGN_PASSWORD, a prompt)")
	fl.StringVar(&f.name, "name", "", "the collector's name (default: as the trust file calls its key)")
	fl.DurationVar(&f.lostAfter, "lost-after", time.Hour, "a host that says nothing new for so long is Lost")
	fl.DurationVar(&f.removeAfter, "remove-after", 7*24*time.Hour, "and leaves the roll after so long")
	fl.DurationVar(&f.every, "every", 0, "go on, once in this time (default: once)")
	_ = cmd.MarkFlagRequired("key")
	_ = cmd.MarkFlagFilename("key")
	_ = cmd.MarkFlagFilename("password-file")
	f.out.register(cmd)
	return cmd
}

// collectResult is the JSON of muster fleet collect.
type collectResult struct {
	Wrote   bool         `json:"wrote"`
	Reason  string       `json:"reason,omitempty"`
	Commit  string       `json:"commit,omitempty"`
	Skipped int          `json:"skipped,omitempty"`
	Counts  fleet.Counts `json:"counts"`
}

func (f *collectFlags) run(cmd *cobra.Command) error {
	if err := f.defaults(); err != nil {
		return err
	}
	if f.trust == "" {
		return hinted("give --trust FILE", "no trust file is known")
	}
	trust, _, err := readTrust(f.trust, "")
	if err != nil {
		return err
	}
	signer, err := f.signer(cmd)
	if err != nil {
		return err
	}
	if f.every <= 0 {
		return f.once(cmd, trust, signer)
	}
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		if err := f.once(cmd, trust, signer); err != nil {
			printError(cmd.ErrOrStderr(), err) // the next round may be better
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *collectFlags) once(cmd *cobra.Command, trust *bundles.Trust, signer ssh.Signer) error {
	hosts, err := f.enrolled(cmd.Context(), trust, time.Now())
	if err != nil {
		return err
	}
	trusted, err := fleet.TrustedCollectors(trust, hosts)
	if err != nil {
		return err
	}
	name := f.name
	if name == "" {
		name = trusted.NameOf(signer.PublicKey())
	}
	if err := trusted.Allows(name, signer.PublicKey(), time.Now()); err != nil {
		return hinted("name this key under collectors: in the trust file; where it names none, an enrolled host may collect with --name ITS-ID",
			"nobody would believe this collector: %w", err)
	}
	remote, err := f.remote()
	if err != nil {
		return err
	}
	c, err := statusref.NewCollector(statusref.CollectorConfig{
		Remote: remote, Fleet: trust.Fleet, Name: name, Key: signer, Hosts: hosts, Trusted: trusted,
		LostAfter: f.lostAfter, RemoveAfter: f.removeAfter,
	})
	if err != nil {
		return err
	}
	done := waiting(cmd.Context(), "folding the reports in "+git.ShownURL(f.repo))
	got, err := c.Collect(cmd.Context())
	done()
	if err != nil {
		return err
	}
	if got.PreviousRefused != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "muster: note: the roll that was there is not believed: %s\n", got.PreviousRefused)
	}
	res := collectResult{Wrote: got.Wrote, Reason: got.Reason, Skipped: got.Skipped, Counts: got.Roll.Counts}
	if got.Wrote {
		res.Commit = got.Commit.String()
	}
	return f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) { printCollect(w, res) })
}

func printCollect(w io.Writer, res collectResult) {
	if !res.Wrote {
		fmt.Fprintf(w, "nothing written: %s\n", res.Reason)
		return
	}
	fmt.Fprintf(w, "status %.12s: %s\n", res.Commit, res.Counts)
}

// signer reads a key of ssh-keygen's, or one of ours or cosign's, which has a password.
func (f *collectFlags) signer(cmd *cobra.Command) (ssh.Signer, error) {
	plain, err := fleet.LoadHostKey(f.key)
	if err == nil {
		return plain, nil
	}
	text, readErr := os.ReadFile(f.key)
	if readErr != nil {
		return nil, readErr
	}
	pass, err := password(cmd, f.passwordFile, false)
	if err != nil {
		return nil, err
	}
	key, err := bundles.LoadKey(text, pass)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(key.CryptoSigner())
}
