// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

// loader reads everything that a reload may change.
type loader struct {
	path string
	host *hostFacts
	// source is kept while nothing about it changes, with what it remembers of the last fetch.
	source bundles.Source
	of     git.Config
}

func (l *loader) load(context.Context) (*reconciler.Settings, error) {
	cfg, err := config.Load(l.path)
	if err != nil {
		return nil, err
	}
	trust, err := readTrust(cfg.Trust)
	if err != nil {
		return nil, err
	}
	if err := l.host.refresh(cfg); err != nil {
		return nil, err
	}
	settings := &reconciler.Settings{Config: cfg, Trust: trust}
	if settings.HostID, err = hostID(cfg, l.host); err != nil {
		return nil, err
	}
	settings.Source = l.open(cfg, trust)
	if cfg.Source.Schedule != "" {
		if settings.Schedule, err = cron.ParseStandard(cfg.Source.Schedule); err != nil {
			return nil, fmt.Errorf("source.schedule: %w", err)
		}
	}
	return settings, nil
}

func (l *loader) open(cfg *config.Config, trust *bundles.Trust) bundles.Source {
	limits := git.DefaultLimits()
	limits.Time = cfg.Source.Timeout
	of := git.Config{URL: cfg.Source.URL, Channel: trust.Channel, Credentials: gitCredentials(cfg.Source.Credentials), Limits: limits}
	if l.source != nil && l.of == of {
		return l.source
	}
	with := of
	with.Last = lastRevision(cfg, trust)
	source, err := git.New(with)
	if err != nil {
		// No reason not to enforce the last good release: the agent runs, and says what is wrong.
		return brokenSource{err}
	}
	l.source, l.of = source, of
	return source
}

// lastRevision is where the newest cached release came from, so that a history that was rewritten while no
// agent ran is known to be.
func lastRevision(cfg *config.Config, trust *bundles.Trust) bundles.Revision {
	var newest *bundles.Verified
	for _, level := range []bundles.Level{bundles.LevelEnforce, bundles.LevelAudit} {
		v, _, err := bundles.NewCache(cfg.CacheDir).Load(level, trust, bundles.Seen{}, time.Now())
		if err == nil && v != nil && (newest == nil || v.Release().Sequence > newest.Release().Sequence) {
			newest = v
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Revision()
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
