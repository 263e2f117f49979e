// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/local"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/bundles/sshsig"
	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/reconciler/config"
)

// sourceFlags are how the verbs that talk to a repository or a registry authenticate there.
type sourceFlags struct {
	git, oci config.Credentials
	signKey  string // signs the commits that a verb makes
}

func (f *sourceFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.git.UsernameFile, "git-username-file", "", "file with the user name for HTTP")
	fl.StringVar(&f.git.PasswordFile, "git-password-file", "", "file with the password or token for HTTP (mode 0600)")
	fl.StringVar(&f.git.TokenFile, "git-token-file", "", "file with a bearer token for HTTP (mode 0600)")
	fl.StringVar(&f.git.SSHKeyFile, "git-ssh-key", "", "private key for ssh (mode 0600); without it the ssh agent is asked")
	fl.StringVar(&f.git.KnownHostsFile, "git-known-hosts", "", "known_hosts file for ssh")
	fl.StringVar(&f.git.CAFile, "git-ca-file", "", "certificates to believe instead of the system's")
	fl.StringVar(&f.oci.DockerConfigFile, "oci-docker-config", "", "docker config.json or pull secret for the registry (mode 0600; default yours, or $MUSTER_OCI_USERNAME and $MUSTER_OCI_PASSWORD)")
	fl.StringVar(&f.oci.UsernameFile, "oci-username-file", "", "file with the user name for the registry")
	fl.StringVar(&f.oci.PasswordFile, "oci-password-file", "", "file with the password or token for the registry (mode 0600)")
	fl.StringVar(&f.oci.TokenFile, "oci-token-file", "", "file with the registry's own bearer token (mode 0600)")
	fl.StringVar(&f.oci.CAFile, "oci-ca-file", "", "certificates to believe for the registry instead of the system's")
	fl.StringVar(&f.oci.ClientCertFile, "oci-client-cert", "", "this machine's certificate for the registry")
	fl.StringVar(&f.oci.ClientKeyFile, "oci-client-key", "", "its private key (mode 0600)")
	fl.StringVar(&f.oci.Cloud, "oci-cloud", "", "take this machine's credentials from a cloud: google")
	for _, name := range []string{
		"git-username-file", "git-password-file", "git-token-file", "git-ssh-key", "git-known-hosts", "git-ca-file", "oci-docker-config",
		"oci-username-file", "oci-password-file", "oci-token-file", "oci-ca-file", "oci-client-cert", "oci-client-key",
	} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.RegisterFlagCompletionFunc("oci-cloud", cobra.FixedCompletions([]string{"google"}, cobra.ShellCompDirectiveNoFileComp))
}

// of answers the credentials for a URL.
func (f *sourceFlags) of(url string) config.Credentials {
	if oci.IsReference(url) {
		return f.oci
	}
	return f.git
}

// registry is the credentials of a person, or of CI, which passes a password in the environment.
func (f *sourceFlags) registry() oci.Credentials {
	c := sources.OCI(f.oci)
	if f.oci == (config.Credentials{CAFile: c.CAFile, ClientCertFile: c.ClientCertFile, ClientKeyFile: c.ClientKeyFile}) {
		c.Username, c.Password = os.Getenv("MUSTER_OCI_USERNAME"), os.Getenv("MUSTER_OCI_PASSWORD")
		c.Person = true
	}
	return c
}

// registerSigning is for the verbs that make commits.
func (f *sourceFlags) registerSigning(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.signKey, "git-sign-key", "", "ssh private key to sign the channel's commit with, for hosts whose trust file asks for it")
	_ = cmd.MarkFlagFilename("git-sign-key")
}

// commitSigner answers how to sign commits, nil for not at all.
func (f *sourceFlags) commitSigner() (func([]byte) ([]byte, error), error) {
	if f.signKey == "" {
		return nil, nil //nolint:nilnil // no signer is no error
	}
	text, err := os.ReadFile(f.signKey)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, hinted("give a private key without a passphrase, as CI has them", "%s: %w", f.signKey, err)
	}
	return func(payload []byte) ([]byte, error) { return sshsig.Sign(key, "git", payload) }, nil
}

// channel opens a channel for somebody who may push. On a registry the keys sign the artifact too, for cosign.
func (f *sourceFlags) channel(url, channel string, keys []*bundles.KeySigner, lookBack int) (bundles.Channel, error) {
	if oci.IsReference(url) {
		return oci.OpenChannel(oci.ChannelConfig{
			Reference: url, Channel: channel, Credentials: f.registry(), Keys: keys, LookBack: lookBack, Now: time.Now,
		})
	}
	if local.Is(url) {
		return nil, hinted("muster bundle import writes a directory", "%s: nothing is published there", url)
	}
	sign, err := f.commitSigner()
	if err != nil {
		return nil, err
	}
	return git.OpenChannel(git.ChannelConfig{
		URL: url, Channel: channel, Credentials: sources.Git(f.git), SignCommit: sign,
		Username: os.Getenv("MUSTER_GIT_USERNAME"), Password: os.Getenv("MUSTER_GIT_PASSWORD"),
	})
}

// fetch reads the release that a directory, a file, a repository's channel or a registry has now.
func (f *sourceFlags) fetch(ctx context.Context, target, channel string) (*bundles.Raw, error) {
	target, err := localTarget(target)
	if err != nil {
		return nil, err
	}
	defer waiting(ctx, "reading the release at "+git.ShownURL(target))()
	if git.IsSSH(target) && sources.IsGit(target) && f.git.SSHKeyFile == "" {
		return f.fetchAsPerson(ctx, target, channel)
	}
	src, err := f.source(target, channel)
	if err != nil {
		return nil, err
	}
	rev, err := src.Latest(ctx)
	if err != nil {
		return nil, err
	}
	return src.Fetch(ctx, rev)
}

func (f *sourceFlags) source(target, channel string) (bundles.Source, error) {
	if oci.IsReference(target) {
		return oci.New(oci.Config{Reference: target, Channel: channel, Credentials: f.registry(), Now: time.Now})
	}
	return sources.Open(config.Source{URL: target, Credentials: f.git}, channel, time.Now)
}

// localTarget turns a path on this machine into the URL that leads to it.
func localTarget(target string) (string, error) {
	info, err := os.Stat(target)
	switch {
	case err != nil && !sources.IsURL(target):
		return "", hinted("give a directory, a file, a Git URL or an oci:// reference", "%w", err)
	case err != nil:
		return target, nil
	}
	if target, err = filepath.Abs(target); err != nil {
		return "", err
	}
	switch {
	case !info.IsDir():
		return "bundle://" + target, nil
	case exists(target, bundles.MetaDir):
		return "dir://" + target, nil
	case exists(target, ".git") || exists(target, "HEAD"):
		return target, nil
	}
	return "", bundles.NewRefusal(bundles.ErrNoRelease, nil, "%s is neither a release nor a Git repository", target)
}

func exists(dir, name string) bool { return fileExists(filepath.Join(dir, name)) }

// fetchAsPerson uses the ssh agent and the person's known_hosts, which a host never does.
func (f *sourceFlags) fetchAsPerson(ctx context.Context, url, channel string) (*bundles.Raw, error) {
	ch, err := f.channel(url, channel, nil, 0)
	if err != nil {
		return nil, err
	}
	rev, err := ch.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	if rev == "" {
		return nil, bundles.NewRefusal(bundles.ErrNoRelease, nil, "there is no branch muster/%s", channel)
	}
	raw, _, err := ch.Release(rev)
	return raw, err
}
