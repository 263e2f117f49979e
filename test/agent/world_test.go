// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/running"
)

// world is everything around one agent: a real Git repository, keys, a host, a pretended kernel.
type world struct {
	t        *testing.T
	dir      string
	kernel   *kernel
	keys     map[string]*bundles.KeySigner
	pems     map[string]string
	fleet    string
	enforce  int // signers needed to enforce
	revoked  []string
	fresh    bool // the trust asks for freshness, and each release comes with it
	cfg      config.Config
	began    time.Time
	sequence int64
	labels   map[string]string
	teams    []reconciler.Tenant
	// trustFile is the installed trust file, when it is not alice's and bob's of the world.
	trustFile []byte
	// notify hears what the service manager is told, watchdog is how often it wants to.
	notify   func(string)
	watchdog time.Duration
	// early is how far the next agent's clock is set back.
	early time.Duration
	// shield is there where the agent protects itself.
	shield *shield

	mu       sync.Mutex
	reported []*fleet.Report
	repaired int
	deaf     bool // the reporter fails

	loop *reconciler.Loop
	stop func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, began: time.Now(), dir: t.TempDir(), kernel: newKernel(), keys: map[string]*bundles.KeySigner{}, pems: map[string]string{}, fleet: "test", enforce: 1}
	w.notify = func(string) {}
	w.labels = map[string]string{"kubernetes.io/hostname": "web-1", "kubearmor.io/hostname": "web-1"}
	for _, name := range []string{"alice", "bob", "mallory", "ci-clock"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.must(err)
		w.keys[name], err = bundles.SignerFromKey(key)
		w.must(err)
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		w.must(err)
		w.pems[name] = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	w.git("init", "-q", "--bare", w.repo())
	w.cfg = config.Default()
	w.cfg.Source = config.Source{URL: "file://" + w.repo(), Interval: time.Hour, Timeout: 20 * time.Second}
	w.cfg.DriftInterval = 30 * time.Millisecond
	w.cfg.StateDir = filepath.Join(w.dir, "state")
	w.cfg.CacheDir = filepath.Join(w.dir, "state", "cache")
	w.must(os.MkdirAll(w.cfg.StateDir, 0o700))
	t.Cleanup(func() { w.halt() })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// truth is the time whatever the wall clock is set to.
func (w *world) truth() time.Time { return w.began.Round(0).Add(time.Since(w.began)) }

func (w *world) repo() string { return filepath.Join(w.dir, "policy.git") }

func (w *world) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// trust is the host's trust file: alice and bob.
func (w *world) trust() *bundles.Trust {
	w.t.Helper()
	trust, err := bundles.LoadTrust(w.trustText())
	w.must(err)
	return trust
}

func (w *world) trustText() []byte {
	if w.trustFile != nil {
		return w.trustFile
	}
	var b strings.Builder
	fmt.Fprintf(&b, "fleet: %s\nchannel: stable\nversion: 1\nepoch: 1\nthreshold: {audit: 1, enforce: %d, trust: 1}\nsigners:\n", w.fleet, w.enforce)
	signer := func(name string) {
		fmt.Fprintf(&b, "  - name: %s\n    key: |\n      %s\n", name, strings.ReplaceAll(strings.TrimSpace(w.pems[name]), "\n", "\n      "))
	}
	signer("alice")
	signer("bob")
	if w.fresh {
		b.WriteString("freshness:\n  maxAge: 26h\n  signers:\n")
		signer("ci-clock")
	}
	if len(w.revoked) > 0 {
		fmt.Fprintf(&b, "revoked: {releases: [%q]}\n", strings.Join(w.revoked, `", "`))
	}
	return []byte(b.String())
}

// publish appends a release with these files, by these signers, whatever is wrong with the files: it is the
// agent that has to refuse them. The same sequence again is the same release with other signatures.
func (w *world) publish(files map[string][]byte, by []string, sequence int64, ack bool) {
	w.t.Helper()
	ch, err := git.OpenChannel(git.ChannelConfig{URL: "file://" + w.repo(), Channel: "stable"})
	w.must(err)
	content := bundles.Content{Files: files, Commit: strings.Repeat("a", 40), Issued: w.began}
	doc, err := bundles.BuildRelease(w.trust(), content, sequence, ack)
	w.must(err)
	all := map[string][]byte{bundles.ReleasePath: doc}
	maps.Copy(all, files)
	for _, name := range by {
		all[bundles.SignatureFile(name)], err = w.keys[name].Sign(w.t.Context(), doc)
		w.must(err)
	}
	if w.fresh {
		all[bundles.FreshPath], err = bundles.BuildFresh(doc, sequence, w.truth(), 26*time.Hour)
		w.must(err)
		all[bundles.FreshSigPath], err = w.keys["ci-clock"].Sign(w.t.Context(), all[bundles.FreshPath])
		w.must(err)
	}
	tip, err := ch.Refresh(w.t.Context())
	w.must(err)
	_, err = ch.Append(w.t.Context(), tip, all, "release", time.Now())
	w.must(err)
	w.sequence = max(w.sequence, sequence)
}

// start begins an agent.
func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	var protector reconciler.Protector
	if w.shield != nil {
		protector = w.shield
	}
	w.loop = reconciler.New(reconciler.Deps{
		Protector: protector,
		Load:      w.load, StateDir: w.cfg.StateDir,
		Host: w, Backend: w.kernel, Reporter: w, Counters: w, Watcher: w, Clock: setBack{early: w.early}, Log: log,
		Identified: func(string, string, enforce.Postures) {}, Audited: func([]enforce.AuditedPolicy) {}, Notify: w.notify, Watchdog: w.watchdog, Version: "test",
	})
	w.stop = running.Start(w.t, w.loop)
}

// halt stops the agent, if one runs.
func (w *world) halt() {
	if w.stop != nil {
		w.stop()
	}
}

func (w *world) load(context.Context) (*reconciler.Settings, error) {
	trust, err := bundles.LoadTrust(w.trustText())
	if err != nil {
		return nil, err
	}
	source, err := git.New(git.Config{URL: w.cfg.Source.URL, Channel: trust.Channel})
	if err != nil {
		return nil, err
	}
	cfg := w.cfg
	own := reconciler.Tenant{
		Source: source, Look: cfg.Source,
		Cache: bundles.NewCache(cfg.CacheDir), Seen: bundles.NewStateFile(cfg.StateDir), Trusts: bundles.NewTrustStore(cfg.StateDir),
	}
	own.Trust, own.Links, own.Lost = own.Trusts.Load(trust)
	return &reconciler.Settings{Config: &cfg, HostID: "web-1", Tenants: append([]reconciler.Tenant{own}, w.teams...)}, nil
}

func (w *world) sync() *control.SyncResult {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	result, err := w.loop.Sync(ctx, control.SyncRequest{Wait: true})
	w.must(err)
	return result
}

func (w *world) status() *control.Status {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		status, err := w.loop.Status(w.t.Context())
		if err == nil {
			return status
		}
		select {
		case <-tick.C: // it is starting
		case <-deadline:
			w.t.Fatal(err)
		}
	}
}

// await waits until ok says so; it looks again whenever the loop could have moved.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			w.t.Fatalf("never: %s\nreport: %+v", what, w.status().Report)
		case <-tick.C:
		}
	}
}

// setBack is a clock that shows too little.
type setBack struct {
	wall
	early time.Duration
}

func (c setBack) Now() time.Time { return c.wall.Now().Add(-c.early) }

// wall is the real clock.
type wall struct{}

func (wall) Now() time.Time                         { return time.Now() }
func (wall) After(d time.Duration) <-chan time.Time { return time.After(d) }

// The host.

func (w *world) Node() (inventory.Node, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	labels := map[string]string{}
	maps.Copy(labels, w.labels)
	return inventory.Node{Hostname: "web-1", Kernel: "6.12", LSMs: []string{"bpf"}, Labels: labels}, true
}

func (w *world) Changed() <-chan struct{} { return nil }

func (w *world) Resolve([]string) map[string]string { return nil }

func (w *world) Protect() []enforce.ProtectPair {
	return []enforce.ProtectPair{{Class: "process", Source: "/usr/sbin/sshd", Object: "/bin/bash"}}
}

// The reporter.

func (w *world) Report(_ context.Context, mail reconciler.Mail) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf {
		return errPretended
	}
	w.reported = append(w.reported, mail.Report)
	return nil
}

func (w *world) Flush(context.Context) error   { return nil }
func (w *world) Collect(context.Context) error { return nil }

// The counters and the watcher.

func (w *world) Counts() []fleet.EventCount                           { return nil }
func (w *world) Losses() map[string]uint64                            { return nil }
func (w *world) Round(reconciler.Cause, time.Duration, *fleet.Report) {}
func (w *world) Refused(string)                                       {}
func (w *world) Pulled(bool)                                          {}
func (w *world) Repaired(enforce.DriftKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repaired++
}
