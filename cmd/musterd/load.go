// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

// loader reads everything that a reload may change.
type loader struct {
	path string
	host *hostFacts
	// running is what the agent was started with.
	running *config.Config
	// sources are kept by tenant while nothing about them changes, with what they remember of the last fetch.
	sources map[string]openedSource
}

type openedSource struct {
	of      config.Source
	channel string
	source  bundles.Source
}

// loadConfig reads the configuration, when nobody else could have written it.
func loadConfig(path string) (*config.Config, error) {
	if err := checkOwnership(path); err != nil {
		return nil, err
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	for _, n := range deciding(cfg) {
		if err := checkOwnership(n.path); err != nil {
			return nil, fmt.Errorf("%s: %w", n.key, err)
		}
	}
	return cfg, nil
}

// deciding are the files and directories that a configuration names, by key, and that decide what is enforced or in
// whose name it is reported. The trust files are looked at where they are read.
func deciding(cfg *config.Config) []struct{ key, path string } {
	return slices.DeleteFunc([]struct{ key, path string }{
		{"labels", cfg.Labels}, {"hostKey", cfg.HostKey}, {"stateDir", cfg.StateDir}, {"cacheDir", cfg.CacheDir},
	}, func(n struct{ key, path string }) bool { return n.path == "" })
}

func (l *loader) load(context.Context) (*reconciler.Settings, error) {
	cfg, err := loadConfig(l.path)
	if err != nil {
		return nil, err
	}
	settings := &reconciler.Settings{Config: cfg, Restart: config.NeedRestart(l.running, cfg)}
	opened := map[string]openedSource{}
	all := append([]config.Tenant{{Trust: cfg.Trust, Source: cfg.Source}}, cfg.Tenants...)
	for _, t := range all {
		tenant, err := l.tenant(cfg, t, opened)
		if err != nil {
			return nil, err
		}
		settings.Tenants = append(settings.Tenants, *tenant)
	}
	if err := l.host.refresh(cfg); err != nil {
		return nil, err
	}
	if settings.HostID, err = hostID(cfg, l.host); err != nil {
		return nil, err
	}
	l.sources = opened
	return settings, nil
}

// tenant reads one tenant's trust and opens its source. The host's own keeps its state where there was only one.
func (l *loader) tenant(cfg *config.Config, t config.Tenant, opened map[string]openedSource) (*reconciler.Tenant, error) {
	pinned, err := readTrust(t.Trust)
	if err != nil {
		return nil, err
	}
	stateDir, cacheDir := cfg.StateDir, cfg.CacheDir
	if t.Name != "" {
		stateDir, cacheDir = filepath.Join(stateDir, "tenants", t.Name), filepath.Join(cacheDir, "tenants", t.Name)
	}
	out := &reconciler.Tenant{
		Name: t.Name, Look: t.Source, Cache: bundles.NewCache(cacheDir), Seen: bundles.NewStateFile(stateDir), Trusts: bundles.NewTrustStore(stateDir),
	}
	out.Trust, out.Links, out.Lost = out.Trusts.Load(pinned)
	if t.Source.Schedule != "" {
		if out.Schedule, err = cron.ParseStandard(t.Source.Schedule); err != nil {
			return nil, fmt.Errorf("source.schedule: %w", err)
		}
	}
	if old, there := l.sources[t.Name]; there && reflect.DeepEqual(old.of, t.Source) && old.channel == pinned.Channel {
		opened[t.Name], out.Source = old, old.source
		return out, nil
	}
	out.Source, err = sources.Open(t.Source, pinned.Channel, time.Now)
	if err != nil {
		// No reason not to enforce the last good release: the agent runs, and says what is wrong.
		out.Source = brokenSource{err}
		return out, nil
	}
	opened[t.Name] = openedSource{of: t.Source, channel: pinned.Channel, source: out.Source}
	return out, nil
}

// brokenSource is a source whose configuration cannot work.
type brokenSource struct{ err error }

// Latest fails.
func (s brokenSource) Latest(context.Context) (bundles.Revision, error) {
	return "", &brokenError{s.err}
}

// Fetch fails.
func (s brokenSource) Fetch(context.Context, bundles.Revision) (*bundles.Raw, error) {
	return nil, &brokenError{s.err}
}

type brokenError struct{ err error }

func (e *brokenError) Error() string { return "source: " + e.err.Error() }

// Unwrap returns what is wrong.
func (e *brokenError) Unwrap() error { return e.err }

// Stalled is true: waiting does not mend a configuration.
func (e *brokenError) Stalled() bool { return true }

// Hint is what the operator can do.
func (e *brokenError) Hint() string {
	return "musterd --check says what is wrong; systemctl reload musterd afterwards"
}

func hostID(cfg *config.Config, host *hostFacts) (string, error) {
	if cfg.HostID != "" {
		return cfg.HostID, fleet.CheckHostID(cfg.HostID)
	}
	node, _ := host.Node()
	return fleet.HostID(node.Hostname)
}

// maxTrust bounds the trust file; bundles.LoadTrust accepts no more.
const maxTrust = 1 << 20

func readTrust(path string) (*bundles.Trust, error) {
	if err := checkOwnership(path); err != nil {
		return nil, &trustError{path: path, err: err}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, &trustError{path: path, err: err}
	}
	defer file.Close()
	// One byte more than is accepted: a longer file must be refused, not lose its end, where its revocations may be.
	content, err := io.ReadAll(io.LimitReader(file, maxTrust+1))
	if err != nil {
		return nil, &trustError{path: path, err: err}
	}
	trust, err := bundles.LoadTrust(content)
	if err != nil {
		return nil, &trustError{path: path, err: err}
	}
	return trust, nil
}

type trustError struct {
	path string
	err  error
}

func (e *trustError) Error() string { return fmt.Sprintf("trust %s: %v", e.path, e.err) }

// Unwrap returns what is wrong.
func (e *trustError) Unwrap() error { return e.err }

// Hint is what the operator can do.
func (e *trustError) Hint() string { return "muster join URL --trust-sha256 … writes and pins it" }
