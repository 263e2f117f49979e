// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package sources opens what a source's URL leads to: the one place that knows every transport.
package sources

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/local"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/reconciler/config"
)

// Open opens a source with its mirrors. It checks the configuration and touches no network.
func Open(cfg config.Source, channel string, now func() time.Time) (bundles.Source, error) {
	first, err := open(cfg, config.Mirror{URL: cfg.URL, Credentials: cfg.Credentials}, channel, now)
	if err != nil || len(cfg.Mirrors) == 0 {
		return first, err
	}
	members := []bundles.Member{{Name: Shown(cfg.URL), Source: first}}
	for _, m := range cfg.Mirrors {
		s, err := open(cfg, m, channel, now)
		if err != nil {
			return nil, err
		}
		members = append(members, bundles.Member{Name: Shown(m.URL), Source: s})
	}
	return bundles.NewMirrored(members, now), nil
}

func open(cfg config.Source, at config.Mirror, channel string, now func() time.Time) (bundles.Source, error) {
	switch {
	case oci.IsReference(at.URL):
		limits := oci.DefaultLimits()
		if cfg.Timeout > 0 {
			limits.Time = cfg.Timeout
		}
		return oci.New(oci.Config{
			Reference: at.URL, Channel: channel, Credentials: OCI(at.Credentials), Limits: limits, Recheck: cfg.Recheck, Now: now,
		})
	case local.Is(at.URL):
		return local.New(at.URL)
	}
	limits := git.DefaultLimits()
	if cfg.Timeout > 0 {
		limits.Time = cfg.Timeout
	}
	return git.New(git.Config{URL: at.URL, Channel: channel, Credentials: Git(at.Credentials), Limits: limits})
}

// Git is what of the credentials is for Git.
func Git(c config.Credentials) git.Credentials {
	return git.Credentials{
		UsernameFile: c.UsernameFile, PasswordFile: c.PasswordFile, TokenFile: c.TokenFile,
		SSHKeyFile: c.SSHKeyFile, KnownHostsFile: c.KnownHostsFile, CAFile: c.CAFile,
		ClientCertFile: c.ClientCertFile, ClientKeyFile: c.ClientKeyFile, Proxy: c.Proxy,
	}
}

// OCI is what of the credentials is for registries.
func OCI(c config.Credentials) oci.Credentials {
	return oci.Credentials{
		DockerConfigFile: c.DockerConfigFile, UsernameFile: c.UsernameFile, PasswordFile: c.PasswordFile,
		TokenFile: c.TokenFile, CAFile: c.CAFile, ClientCertFile: c.ClientCertFile, ClientKeyFile: c.ClientKeyFile,
		Cloud: c.Cloud, Proxy: c.Proxy,
	}
}

// Shown is a source's URL as it may stand in a report: without a user.
func Shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return raw
	}
	u.User = nil
	return u.String()
}

// Absolute makes the files of credentials absolute: an agent has no working directory.
func Absolute(c *config.Credentials) error {
	for _, p := range []*string{
		&c.UsernameFile, &c.PasswordFile, &c.TokenFile, &c.SSHKeyFile, &c.KnownHostsFile, &c.CAFile,
		&c.DockerConfigFile, &c.ClientCertFile, &c.ClientKeyFile,
	} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// IsGit says whether a URL leads to Git, as all do that lead nowhere else.
func IsGit(raw string) bool { return !oci.IsReference(raw) && !local.Is(raw) }

// IsURL tells a URL, or a host and path as ssh takes them, from the name of something on this machine.
func IsURL(raw string) bool { return strings.Contains(raw, ":") }
