// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/config"
)

// errCheck says that something would keep the agent from working; the lines above it say what.
var errCheck = errors.New("the configuration would not work")

// checkConfig says everything that is wrong with the configuration and what it names. A warning is worth
// thinking about; an error keeps the agent from starting or from working.
func checkConfig(path string, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	c := &checkList{out: out}
	c.failed("configuration", checkOwnership(path))
	for _, n := range deciding(cfg) {
		c.failed(n.key, checkOwnership(n.path))
	}
	trust, err := readTrust(cfg.Trust)
	c.failed("trust", err)
	c.credentials("status", cfg.Status.Credentials)
	c.sourceCredentials("source", &cfg.Source)
	if trust != nil {
		_, err = sources.Open(cfg.Source, trust.Channel, time.Now)
		c.failed("source", err)
	}
	for _, t := range cfg.Tenants {
		c.tenant(t)
	}
	if cfg.HostID != "" {
		c.failed("hostId", fleet.CheckHostID(cfg.HostID))
	}
	if _, err := os.Stat(cfg.HostKey); err == nil {
		_, err = fleet.LoadOrCreateHostKey(cfg.HostKey)
		c.failed("hostKey", err)
	}
	if cfg.Status.URL != "" && sameRepository(cfg.Source.URL, cfg.Status.URL) {
		c.warn("status", "is in the repository that holds the policies: whoever can write reports there may be able to push policy; give status a repository of its own, or protect every policy branch from the hosts' credential")
	}
	if cfg.Backend == "bpflsm" {
		if err := bpflsm.Usable(); err != nil {
			c.warn("backend", "would not work on this machine: "+err.Error())
		}
	}
	if c.errors > 0 {
		return errCheck
	}
	fmt.Fprintf(out, "%s: ok\n", path)
	return nil
}

type checkList struct {
	out    io.Writer
	errors int
}

func (c *checkList) failed(what string, err error) {
	if err == nil {
		return
	}
	c.errors++
	fmt.Fprintf(c.out, "error: %s: %v\n", what, err)
}

func (c *checkList) warn(what, text string) { fmt.Fprintf(c.out, "warning: %s %s\n", what, text) }

// tenant checks a team's trust and source, and that the team is kept to something.
func (c *checkList) tenant(t config.Tenant) {
	name := "tenant " + t.Name
	trust, err := readTrust(t.Trust)
	c.failed(name, err)
	c.sourceCredentials(name, &t.Source)
	if trust == nil {
		return
	}
	if !trust.Scoped() {
		c.warn(name, "may release anything for this host: give its trust file a scope")
	}
	_, err = sources.Open(t.Source, trust.Channel, time.Now)
	c.failed(name, err)
}

func (c *checkList) sourceCredentials(where string, s *config.Source) {
	for key, credentials := range s.AllCredentials(where) {
		c.credentials(key, credentials)
	}
}

// credentials must exist, and secret ones must be readable by nobody else.
func (c *checkList) credentials(where string, credentials config.Credentials) {
	for key, path := range credentials.Files() {
		if path == "" {
			continue
		}
		name := where + ".credentials." + key
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.failed(name, fmt.Errorf("%s does not exist", path))
		case err != nil:
			c.failed(name, err)
		case credentials.Secret(key) && info.Mode().Perm()&0o077 != 0:
			c.failed(name, fmt.Errorf("%s is readable by others (mode %04o): chmod 600", path, info.Mode().Perm()))
		default:
			c.failed(name, checkOwnership(path))
		}
	}
}

// sameRepository compares two URLs as a forge would: user, scheme, ".git" and a trailing slash do not count.
func sameRepository(a, b string) bool { return repository(a) == repository(b) }

func repository(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" { // scp-like: git@host:path, or a plain path
		_, rest, found := strings.Cut(raw, "@")
		if !found {
			rest = raw
		}
		host, path, found := strings.Cut(rest, ":")
		if !found {
			return strings.TrimSuffix(strings.TrimSuffix(raw, "/"), ".git")
		}
		u = &url.URL{Host: host, Path: "/" + strings.TrimPrefix(path, "/")}
	}
	return strings.ToLower(u.Hostname()) + strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), ".git")
}
