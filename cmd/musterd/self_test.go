// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

func TestSelfOf(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Tenants = []config.Tenant{{Name: "shop", Trust: "/srv/shop/trust.yaml"}}
	cfg.Status.Credentials.TokenFile = "/etc/secrets/token"
	cfg.Metrics.Socket = "/run/metrics.sock"
	self := selfOf(config.DefaultPath, &cfg)
	for _, path := range []string{
		"/var/lib/muster", "/var/lib/muster/cache", "/etc/muster", "/etc/muster/musterd.yaml", "/etc/muster/trust.yaml",
		"/srv/shop/trust.yaml", "/etc/secrets/token",
	} {
		if !slices.Contains(self.Trees, path) {
			t.Errorf("%s is not covered", path)
		}
	}
	for _, path := range []string{"/srv/shop", "/etc/secrets", "/run"} {
		if slices.Contains(self.Trees, path) || slices.Contains(self.Run, path) {
			t.Errorf("%s is covered as a whole", path)
		}
	}
	for _, path := range decidingOf(config.DefaultPath, &cfg) {
		if !slices.Contains(self.Trees, path) {
			t.Errorf("%s decides, and is not covered: no agent would start", path)
		}
	}
	if !slices.Equal(self.Run, []string{"/run/muster", "/run/muster/musterd.sock", "/run/metrics.sock"}) {
		t.Errorf("of whoever starts the agent: %q", self.Run)
	}
}

// Self-protection is off unless it is asked for, and where nothing is enforced.
func TestSelfIsOffByDefault(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	if p := newProtector(config.DefaultPath, &cfg, &backend{backend: reconciler.ObserveOnly{}}); p != nil {
		t.Error("on by default")
	}
	cfg.ProtectSelf = true
	if p := newProtector(config.DefaultPath, &cfg, &backend{backend: reconciler.ObserveOnly{}}); p != nil {
		t.Error("on without a backend")
	}
	b := &backend{backend: new(bpflsm.Backend)}
	if p := newProtector(config.DefaultPath, &cfg, b); p == nil {
		t.Error("not on where it was asked for")
	}
	cfg.ProtectSelf = false
	if p := newProtector(config.DefaultPath, &cfg, b); p != nil {
		t.Error("on where it was not asked for")
	}
}
