// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"testing"

	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/oci"
)

// TestProxy: a registry whose name nobody here can resolve is reached through the proxy that the credentials name.
func TestProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, serve(t, inProcess(true)), "alice") // it answers for whatever host it is asked for
	w.publish(t, bundlestest.Files(), "alice")
	open := func(c oci.Credentials) *oci.Source {
		s, err := oci.New(oci.Config{Reference: "oci+http://registry.acme.invalid/acme/policy:stable", Channel: "stable", Credentials: c, Now: w.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, err := w.verify(t, open(oci.Credentials{})); err == nil {
		t.Fatal("the name resolves: nothing here can tell")
	}
	w.take()
	w.accepted(t, open(oci.Credentials{Proxy: "http://" + w.host}))
	if len(w.take()) == 0 {
		t.Fatal("the proxy was not asked")
	}
}
