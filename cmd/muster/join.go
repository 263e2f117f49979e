// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/config"
)

type joinFlags struct {
	trust, sha256, channel, status, root, hostID string
	force, noStart                               bool
	from                                         sourceFlags
	out                                          outputFlag
}

func newJoinCmd() *cobra.Command {
	var f joinFlags
	cmd := &cobra.Command{
		Use:   "join URL",
		Short: "Make this host follow a policy repository or registry",
		Long: "Pins the trust file into /etc/muster, writes musterd's configuration, makes the host's key and starts\n" +
			"musterd. Without --trust the trust file is taken from the channel, and --trust-sha256, which you have from\n" +
			"your team, is what makes it trustworthy.",
		Example: "  sudo muster join https://git.example.com/policy.git --trust-sha256 3f5a…\n" +
			"  sudo muster join ssh://git@git.example.com/policy.git --trust trust.yaml --status ssh://git@git.example.com/status.git\n" +
			"  sudo muster join oci://registry.example.com/acme/policy:stable --trust-sha256 3f5a… --oci-docker-config /etc/muster/pull.json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.trust, "trust", "", "trust file (default the channel's, checked with --trust-sha256)")
	fl.StringVar(&f.sha256, "trust-sha256", "", "sha256 of the trust file")
	fl.StringVar(&f.channel, "channel", "stable", "channel to take the trust file from")
	fl.StringVar(&f.status, "status", "", "URL of the status repository, which is never the policy repository")
	fl.StringVar(&f.hostID, "host-id", "", "name of this host in the fleet (default its host name)")
	fl.StringVar(&f.root, "root", "/", "write below this directory; musterd is not started then")
	fl.BoolVar(&f.force, "force", false, "replace another trust file or configuration")
	fl.BoolVar(&f.noStart, "no-start", false, "do not start musterd")
	_ = cmd.MarkFlagFilename("trust", "yaml")
	_ = cmd.MarkFlagDirname("root")
	f.from.register(cmd)
	f.out.register(cmd)
	return cmd
}

type joined struct {
	Fleet       string   `json:"fleet"`
	Channel     string   `json:"channel"`
	TrustSHA256 string   `json:"trustSha256"`
	HostID      string   `json:"hostId"`
	AllowedLine string   `json:"allowedLine"`
	Release     string   `json:"release,omitempty"`
	Started     bool     `json:"started"`
	Warnings    []string `json:"warnings,omitempty"`
}

func (f *joinFlags) run(cmd *cobra.Command, url string) error {
	if err := f.checkSource(url); err != nil {
		return err
	}
	trust, text, err := f.loadTrust(cmd.Context(), url)
	if err != nil {
		return err
	}
	res := joined{Fleet: trust.Fleet, Channel: trust.Channel, TrustSHA256: trust.Digest()}
	if res.HostID, err = f.host(); err != nil {
		return err
	}
	if err := f.rehearse(cmd.Context(), url, trust, &res); err != nil {
		return err
	}
	if err := f.install(url, text, &res); err != nil {
		return err
	}
	if f.root == "/" && !f.noStart {
		if err := startAgent(cmd.Context(), &res); err != nil {
			return err
		}
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "muster: warning: %s\n", w)
	}
	return f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) {
		fmt.Fprintf(w, "joined fleet %s, channel %s, as %s\n", res.Fleet, res.Channel, res.HostID)
		fmt.Fprintf(w, "trust sha256 %s\n", res.TrustSHA256)
		if res.Release != "" {
			fmt.Fprintf(w, "%s\n", res.Release)
		}
		fmt.Fprintf(w, "enrol this host by adding to hosts.allowed_signers:\n%s\n", res.AllowedLine)
	})
}

// host answers the name under which musterd will report, so that the line that enrols it is one that counts.
func (f *joinFlags) host() (string, error) {
	if f.hostID != "" {
		return f.hostID, fleet.CheckHostID(f.hostID)
	}
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	id, err := fleet.HostID(name)
	if err != nil {
		return "", hinted("give --host-id", "%w", err)
	}
	return id, nil
}

// checkSource refuses what musterd could not use: it has no ssh agent, no home and no working directory.
func (f *joinFlags) checkSource(url string) error {
	for _, c := range []*config.Credentials{&f.from.git, &f.from.oci} {
		if err := sources.Absolute(c); err != nil {
			return err
		}
	}
	if _, err := sources.Open(config.Source{URL: url, Credentials: f.from.of(url)}, f.channel, time.Now); err != nil {
		return hinted("see the --git-… and --oci-… flags; the files stay where they are, musterd reads them", "%w", err)
	}
	return nil
}

// loadTrust answers the trust file that was given, or the channel's if it has the given digest. A trust file
// out of a repository is never believed without one.
func (f *joinFlags) loadTrust(ctx context.Context, url string) (*bundles.Trust, []byte, error) {
	if f.trust != "" {
		return readTrust(f.trust, f.sha256)
	}
	if f.sha256 == "" {
		return nil, nil, hinted("give --trust FILE, or --trust-sha256 HEX as your team published it", "nothing says which trust file to believe")
	}
	raw, err := f.from.fetch(ctx, url, f.channel)
	if err != nil {
		return nil, nil, err
	}
	names, err := fs.Glob(raw.FS, bundles.TrustDir+"/*.yaml")
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		text, err := fs.ReadFile(raw.FS, n)
		if err == nil && checkDigest(n, text, f.sha256) == nil {
			t, err := bundles.LoadTrust(text)
			return t, text, err
		}
	}
	return nil, nil, hinted("check the digest, and that the trust file was committed before muster publish",
		"none of the channel's %d trust files has sha256 %s", len(names), f.sha256)
}

// rehearse verifies the channel's release before anything is written. That there is none yet is no obstacle.
func (f *joinFlags) rehearse(ctx context.Context, url string, trust *bundles.Trust, res *joined) error {
	raw, err := f.from.fetch(ctx, url, trust.Channel)
	if err == nil {
		var v *bundles.Verified
		if v, err = bundles.Verify(raw, trust, bundles.Seen{}, time.Now()); err == nil {
			res.Release = fmt.Sprintf("release %d verifies at level %s", v.Release().Sequence, v.Level())
			return nil
		}
	}
	if errors.Is(err, bundles.ErrNoRelease) || f.force {
		res.Warnings = append(res.Warnings, fmt.Sprintf("nothing to enforce yet: %v", err))
		return nil
	}
	return err
}

func (f *joinFlags) install(url string, trust []byte, res *joined) error {
	cfg := config.Default()
	cfg.Source.URL, cfg.Source.Credentials = url, f.from.of(url)
	cfg.HostID = f.hostID
	if f.status != "" {
		cfg.Status.URL, cfg.Status.Credentials = f.status, f.from.git
	}
	switch f.status {
	case "":
		res.Warnings = append(res.Warnings, "no --status repository: reports stay on this host")
	case url:
		res.Warnings = append(res.Warnings, "the status repository is the policy repository: a host's credential could push policy for CI to sign")
	}
	text, err := config.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := f.put(cfg.Trust, trust); err != nil {
		return err
	}
	if err := f.put(config.DefaultPath, text); err != nil {
		return err
	}
	keyPath := filepath.Join(f.root, cfg.HostKey)
	if err := os.MkdirAll(filepath.Dir(keyPath), 0o700); err != nil {
		return err
	}
	key, err := fleet.LoadOrCreateHostKey(keyPath)
	if err != nil {
		return err
	}
	res.AllowedLine = strings.TrimSpace(key.AllowedLine(res.HostID))
	// The public half beside the private one, as ssh-keygen does it, for scripts that enrol hosts.
	words := strings.Fields(res.AllowedLine)
	public := strings.Join(append(words[len(words)-2:], res.HostID), " ") + "\n"
	return bundles.WriteAtomic(keyPath+".pub", []byte(public), 0o644)
}

// put writes a file below the root. Another content that is there is replaced only with --force.
func (f *joinFlags) put(name string, data []byte) error {
	p := filepath.Join(f.root, name)
	old, err := os.ReadFile(p)
	switch {
	case err == nil && bytes.Equal(old, data):
		return nil
	case err == nil && !f.force:
		return hinted("give --force to replace it", "%s exists already and differs", path.Clean(name))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return bundles.WriteAtomic(p, data, 0o644)
}

// startAgent starts musterd where systemd runs.
func startAgent(ctx context.Context, res *joined) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		res.Warnings = append(res.Warnings, "systemd does not run here: start musterd yourself")
		return nil
	}
	for _, args := range [][]string{{"enable", "musterd.service"}, {"restart", "musterd.service"}} {
		if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
			return hinted("look at journalctl -u musterd", "systemctl %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
	}
	res.Started = true
	return nil
}
