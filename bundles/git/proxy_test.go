// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"net/http"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

// TestProxy: a repository whose name nobody here can resolve is reached through the proxy that the credentials name.
func TestProxy(t *testing.T) {
	t.Parallel()
	const url = "http://policy.acme.invalid/policy.git"
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	proxy := serveHTTP(t, repo, "", "") // it answers for whatever host it is asked for
	asked := make(chan string, 64)
	before := func(r *http.Request) { asked <- r.Host }
	proxy.before.Store(&before)
	if _, err := source(t, git.Config{URL: url}).Latest(t.Context()); err == nil {
		t.Fatal("the name resolves: nothing here can tell")
	}
	raw := brought(t, source(t, git.Config{URL: url, Credentials: git.Credentials{Proxy: proxy.URL}}))
	if _, err := bundles.Verify(raw, f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
	if host := <-asked; host != "policy.acme.invalid" {
		t.Fatalf("the proxy was asked for %s", host)
	}
}
