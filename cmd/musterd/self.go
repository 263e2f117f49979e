// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

// selfProtector protects the agent by the backend's programs.
type selfProtector struct {
	backend *bpflsm.Backend
	self    *bpflsm.Self
}

// Protect implements reconciler.Protector.
func (p *selfProtector) Protect(ctx context.Context, on bool) error {
	if !on {
		return p.backend.ProtectSelf(ctx, nil)
	}
	return p.backend.ProtectSelf(ctx, p.self)
}

// newProtector is nil where the configuration does not ask for it, or nothing can be enforced.
func newProtector(path string, cfg *config.Config, back *backend) reconciler.Protector {
	b, enforces := back.backend.(*bpflsm.Backend)
	if !cfg.ProtectSelf || !enforces {
		return nil
	}
	return &selfProtector{backend: b, self: selfOf(path, cfg)}
}

// selfOf lists what is the agent's own besides its pins, its executable and its unit: its state and cache, and the files
// that decide what it does. A directory that is named for Muster is covered as a whole, so that nothing can be put there.
func selfOf(path string, cfg *config.Config) *bpflsm.Self {
	self := &bpflsm.Self{Trees: []string{cfg.StateDir, cfg.CacheDir}}
	for _, file := range append(namedFiles(cfg), path) {
		self.Trees = append(self.Trees, withDirectory(file)...)
	}
	for _, socket := range []string{cfg.Socket, cfg.Metrics.Socket} {
		if socket != "" {
			self.Run = append(self.Run, withDirectory(socket)...)
		}
	}
	return self
}

// decidingOf lists what decides whose word the agent follows: a protected agent starts with what it was protected with. What
// it makes itself (caches, its host key) is not among it.
func decidingOf(path string, cfg *config.Config) []string {
	files := []string{path, cfg.StateDir}
	for _, file := range []string{cfg.Trust, cfg.Labels} {
		if file != "" {
			files = append(files, file)
		}
	}
	for _, t := range cfg.Tenants {
		files = append(files, t.Trust)
	}
	return files
}

// withDirectory is the file, and its directory when that is Muster's.
func withDirectory(file string) []string {
	if dir := filepath.Dir(file); strings.HasPrefix(filepath.Base(dir), "muster") {
		return []string{dir, file}
	}
	return []string{file}
}
