// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

// backend is the one in use, with what it has besides enforce.Backend.
type backend struct {
	backend enforce.Backend
	events  enforce.EventSource // nil: it reports none
	// features asks the kernel what it has of what a backend is made of.
	features func() (map[string]bool, error)
	closer   func() error
}

func (b *backend) close(log *slog.Logger) {
	if b.closer == nil {
		return
	}
	if err := b.closer(); err != nil {
		log.Warn("backend not closed", "error", err)
	}
}

// claimEarly makes this process the agent of what is pinned where the backend's pins are by default, before the configuration
// is read: the ruleset there may keep everybody else from reading it. On a host where nothing is pinned it prepares nothing.
func claimEarly(log *slog.Logger) (*bpflsm.Backend, error) {
	root := config.Default().BPFFS
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) { // no rule is about this question
		return nil, nil
	}
	b, err := bpflsm.New(bpflsm.Config{Root: root, Log: log})
	if err != nil {
		return nil, err
	}
	claim(b, false, log)
	return b, nil
}

// claim goes on without: what the agent needs until it is attached is on the protect list.
func claim(b *bpflsm.Backend, locked bool, log *slog.Logger) {
	if _, err := b.Claim(locked); err != nil {
		log.Warn("not exempt from the pinned ruleset until the programs are attached", "error", err)
	}
}

// openBackend opens the backend that the configuration names, or the one that this kernel has. There is no other agent
// with this configuration.
func openBackend(cfg *config.Config, early *bpflsm.Backend, log *slog.Logger) (*backend, error) {
	observe := &backend{backend: reconciler.ObserveOnly{}, features: bpflsm.Features}
	if cfg.Backend == "observe" {
		return observe, nil
	}
	b := early
	if b == nil || cfg.BPFFS != config.Default().BPFFS {
		var err error
		if b, err = bpflsm.New(bpflsm.Config{Root: cfg.BPFFS, Log: log}); err != nil {
			return nil, err
		}
	}
	claim(b, true, log)
	if err := bpflsm.Usable(); err != nil {
		if cfg.Backend != "auto" {
			return nil, err
		}
		log.Warn("nothing can be enforced here: every rule is a gap", "backend", "observe", "reason", err)
		return observe, nil
	}
	return &backend{backend: b, events: b, features: b.Features, closer: b.Close}, nil
}

var _ reconciler.KernelMemory = (*bpflsm.Backend)(nil)
