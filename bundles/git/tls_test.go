// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

// TestTLS: a server's certificate must lead to the authorities named, or to the system's.
func TestTLS(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	plain := serveHTTP(t, repo, "", "")
	srv := httptest.NewTLSServer(plain.Config.Handler)
	t.Cleanup(srv.Close)
	url := srv.URL + "/" + filepath.Base(repo)
	if _, err := source(t, git.Config{URL: url}).Latest(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("an unknown authority: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644)
	creds := git.Credentials{CAFile: ca}
	raw := brought(t, source(t, git.Config{URL: url, Credentials: creds}))
	if _, err := bundles.Verify(raw, f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
	// The publisher believes the same file.
	ch, err := git.OpenChannel(git.ChannelConfig{URL: url, Channel: "stable", Credentials: creds})
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := ch.Refresh(t.Context()); err != nil || rev != raw.Revision {
		t.Fatal(rev, err)
	}
}

// TestRedirect: a password is not sent to where a redirect leads, and a redirect to another scheme is refused.
func TestRedirect(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	var leaked atomic.Bool
	target := serveHTTP(t, repo, "", "")
	spy := func(r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
	}
	target.before.Store(&spy)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(target.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusFound)
	}))
	t.Cleanup(first.Close)
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("s3cret"), 0o600)
	s := source(t, git.Config{URL: first.URL + "/" + filepath.Base(repo), Credentials: git.Credentials{PasswordFile: password}})
	if _, err := s.Latest(t.Context()); err != nil {
		t.Logf("the redirect is not followed: %v", err)
	}
	if leaked.Load() {
		t.Fatal("the password went to another host")
	}
}
