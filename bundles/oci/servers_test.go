// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// wire is a registry with a proxy in front that counts every request and may answer in the registry's place.
type wire struct {
	host string // 127.0.0.1:port

	mu       sync.Mutex
	requests []string
	before   func(w http.ResponseWriter, r *http.Request) bool // true: it answered
}

func (w *wire) ServeHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r.Method+" "+r.URL.Path)
		before := w.before
		w.mu.Unlock()
		if before != nil && before(rw, r) {
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// intercept sets what answers before the registry does.
func (w *wire) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = f
}

// take answers the requests since the last time.
func (w *wire) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.requests
	w.requests = nil
	return out
}

func (w *wire) ref(rest string) string { return "oci://" + w.host + "/acme/policy" + rest }

func serve(t testing.TB, handler http.Handler) *wire {
	t.Helper()
	w := &wire{}
	server := httptest.NewServer(w.ServeHTTP(handler))
	t.Cleanup(server.Close)
	w.host = strings.TrimPrefix(server.URL, "http://")
	return w
}

// inProcess is go-containerregistry's own registry: real HTTP and the real API, storage in memory.
func inProcess(referrers bool) http.Handler {
	return registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
}

// dockerRegistry is Debian's docker-registry, a process on loopback; it has no referrers API.
func dockerRegistry(t *testing.T, extra string) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("docker-registry is not installed (test/setup.sh)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n%s", filepath.Join(dir, "data"), addr, extra)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "serve", filepath.Join(dir, "config.yml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && os.Getenv("REGISTRY_LOG") != "" {
			t.Logf("docker-registry said:\n%s", out)
		}
	})
	waitFor(t, addr)
	return addr
}

func waitFor(t *testing.T, addr string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("nothing listens at %s", addr)
		}
	}
}

// registries are the servers that a transport must work with, each behind a counting proxy.
func registries(t *testing.T) map[string]func(*testing.T) *wire {
	t.Helper()
	return map[string]func(*testing.T) *wire{
		"docker-registry, without the referrers API": func(t *testing.T) *wire {
			return serve(t, httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: dockerRegistry(t, "")}))
		},
		"go-containerregistry's registry, with the referrers API": func(t *testing.T) *wire {
			return serve(t, inProcess(true))
		},
		"go-containerregistry's registry, without it": func(t *testing.T) *wire {
			return serve(t, inProcess(false))
		},
	}
}
