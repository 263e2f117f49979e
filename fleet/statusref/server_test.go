// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/test/servers"
)

// server is a real git http-backend over a bare repository.
type server struct {
	url, dir string
	requests atomic.Int64
	// down answers 503 while it is true.
	down atomic.Bool
	// before is called before each request; nil for nothing.
	before func(*http.Request)
}

func newServer(t testing.TB) *server {
	t.Helper()
	base := t.TempDir()
	s := &server{dir: filepath.Join(base, "status.git")}
	runGit(t, base, "init", "-q", "--bare", s.dir)
	runGit(t, s.dir, "config", "http.receivepack", "true")
	runGit(t, s.dir, "config", "receive.autogc", "false")
	handler, err := servers.Git(base, "")
	if err != nil {
		t.Fatal(err)
	}
	slots := make(chan struct{}, 8) // processes at a time
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if s.before != nil {
			s.before(r)
		}
		if s.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		slots <- struct{}{}
		defer func() { <-slots }()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(ts.Close)
	s.url = ts.URL + "/status.git"
	return s
}

func runGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// clock is passed in wherever time matters.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// testKey is a host key that is the same in every run.
func testKey(t testing.TB, id string) ssh.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte("key of " + id))
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// enrol makes hosts.allowed_signers for the ids.
func enrol(t testing.TB, ids ...string) *fleet.AllowedSigners {
	t.Helper()
	var b bytes.Buffer
	for _, id := range ids {
		fmt.Fprintf(&b, "%s %s", id, ssh.MarshalAuthorizedKey(testKey(t, id).PublicKey()))
	}
	a, err := fleet.ParseAllowedSigners("hosts.allowed_signers", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testReport(id string, c *clock) *fleet.Report {
	return &fleet.Report{
		Fleet: "lab", Host: id, Time: c.Now(), Agent: "test", Kernel: "6.12", Backend: "bpflsm",
		LSMs: []string{"bpf"}, Mode: enforce.ModeEnforce, State: fleet.StateEnforced,
		Releases: []fleet.ReportRelease{{Level: "enforce", Name: "lab", Channel: "stable", Epoch: 1, Sequence: 7, Digest: "sha256:00"}},
	}
}

// host is one agent.
type host struct {
	id  string
	pub *Publisher
	col *Collector
}

func newHost(t testing.TB, s *server, c *clock, id string, all *fleet.AllowedSigners) *host {
	t.Helper()
	remote := Remote{URL: s.url}
	col, err := NewCollector(CollectorConfig{
		Remote: remote, Fleet: "lab", Name: id, Key: testKey(t, id), Hosts: all,
		Trusted: fleet.Collectors{Hosts: all}, Now: c.Now, MinAge: time.Minute, MaxHosts: 200,
	})
	if err != nil {
		t.Fatal(err)
	}
	pub := NewPublisher(PublisherConfig{Remote: remote, Dir: filepath.Join(t.TempDir(), "report"), Key: testKey(t, id), Now: c.Now})
	return &host{id: id, pub: pub, col: col}
}

func readRoll(t testing.TB, s *server, trusted fleet.Collectors, c *clock) (fleet.Roll, *Status) {
	t.Helper()
	st, err := ReadStatus(context.Background(), Remote{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	roll, err := fleet.VerifyRoll(st.Roll, st.RollSig, trusted, c.Now())
	if err != nil {
		t.Fatal(err)
	}
	return roll, st
}

// collect folds once and says whether that was expected: reason is empty when it should write.
func collect(t testing.TB, c *Collector, reason string) Result {
	t.Helper()
	res, err := c.Collect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if res.Reason != reason || res.Wrote != (reason == "") {
		t.Fatalf("collect: wrote %v, reason %q, want reason %q", res.Wrote, res.Reason, reason)
	}
	return res
}
