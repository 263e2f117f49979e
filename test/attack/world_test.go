// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/running"
	"github.com/muster-fleet/muster/test/servers"
)

// world is a fleet, its source behind HTTP, and one host that follows it.
type world struct {
	t         *testing.T
	dir       string
	transport string
	fleet     *bundlestest.Fleet
	clock     *bundles.KeySigner // vouches for freshness
	trust     []byte
	repo      string
	url       string
	channel   bundles.Channel
	team      *world // a second source, of a team, when the row needs one
	kernel    *enforcetest.Fake
	now       *shiftedClock

	sequence int64 // of the newest good release
	epoch    int64
	sign     []string // who signs good releases
	extra    func(files map[string][]byte)
	revoked  func() []byte // the document of a revoked release
	sigstore *deployment
	tip      string // of the channel, before its history was rewritten
	// committer signs the channel's commits: the owner of the key that may, or a stranger.
	committer, owner, stranger func([]byte) ([]byte, error)
	// attest makes the lint result that lies beside a release of these files, nil for none.
	attest func(files map[string][]byte) []byte
	// firstFiles are a team's first release.
	firstFiles map[string][]byte

	mu      sync.Mutex
	refused map[string]int // by name, as metrics count them
	sent    *fleet.Report
	// hanging is a status repository that never answers.
	hanging bool
	loop    *reconciler.Loop
	stop    func()
}

const (
	first    = 100 // sequence of the first good release
	patience = 30 * time.Second
	secret   = "/etc/secret"
	free     = "/etc/free"
)

func newWorld(t *testing.T, transport string) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), transport: transport, clock: bundlestest.NewKey(t), sequence: first, epoch: 1, sign: []string{"alice", "bob"},
		fleet:   bundlestest.New(t, "alice", "bob", "carol", "mallory", "shop"),
		kernel:  enforcetest.NewFake(enforcetest.Capabilities("bpflsm")),
		refused: map[string]int{}, now: &shiftedClock{},
	}
	w.trust = w.fleet.YAML(t, w.firstTrust())
	w.serve()
	t.Cleanup(w.halt)
	return w
}

// firstTrust is alice's and bob's, who must agree on everything.
func (w *world) firstTrust() bundlestest.TrustFile {
	v := bundlestest.First(2, "alice", "bob")
	v.Audit, v.Enforce = 2, 2
	return v
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// shiftedClock is the real clock, some time ahead or behind.
type shiftedClock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *shiftedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *shiftedClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (c *shiftedClock) shift(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += by
}

// serve starts the server and opens the publisher's side of it.
func (w *world) serve() {
	w.t.Helper()
	var err error
	if w.transport == "oci" {
		server := httptest.NewServer(servers.Registry(true))
		w.t.Cleanup(server.Close)
		w.url = "oci://" + strings.TrimPrefix(server.URL, "http://") + "/acme/policy:stable"
		w.channel, err = oci.OpenChannel(oci.ChannelConfig{Reference: w.url, Channel: "stable", Now: w.now.Now})
		w.must(err)
		return
	}
	w.repo = filepath.Join(w.dir, "policy.git")
	w.git("init", "-q", "--bare", w.repo)
	backend, err := servers.Git(w.dir, "")
	w.must(err)
	server := httptest.NewServer(backend)
	w.t.Cleanup(server.Close)
	w.url = server.URL + "/policy.git"
	w.channel, err = git.OpenChannel(git.ChannelConfig{URL: "file://" + w.repo, Channel: "stable", SignCommit: w.signCommit})
	w.must(err)
}

func (w *world) signCommit(payload []byte) ([]byte, error) {
	if w.committer == nil {
		return nil, nil
	}
	return w.committer(payload)
}

func (w *world) git(args ...string) string { return w.gitIn("", args...) }

func (w *world) gitIn(stdin string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *world) ref(args ...string) string {
	return w.git(append([]string{"-C", w.repo}, args...)...)
}

// policy blocks a file for the whole host, and another that says which release it is of.
func policy(name string, paths ...string) map[string][]byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: %s}\nspec:\n", name)
	b.WriteString("  nodeSelector: {matchLabels: {kubernetes.io/hostname: web-1}}\n  file:\n    matchPaths:\n")
	for _, path := range paths {
		fmt.Fprintf(&b, "      - {path: %s}\n", path)
	}
	b.WriteString("  action: Block\n")
	return map[string][]byte{name + ".yaml": []byte(b.String())}
}

// wrong are the policies of a release that must not come into force: it frees the secret and blocks what is free.
func wrong() map[string][]byte { return policy("own", free) }

// right are those of a good one; n tells it from the one before.
func right(n int64) map[string][]byte { return policy("own", secret, fmt.Sprintf("/etc/n%d", n)) }

// doc is release.json.
func (w *world) doc(files map[string][]byte, sequence int64) []byte {
	w.t.Helper()
	return w.docOf(files, sequence, w.now.Now())
}

func (w *world) docOf(files map[string][]byte, sequence int64, issued time.Time) []byte {
	w.t.Helper()
	trust := bundlestest.Load(w.t, w.trust)
	doc, err := bundles.BuildRelease(&bundles.Trust{Fleet: trust.Fleet, Channel: trust.Channel, Epoch: w.epoch},
		bundles.Content{Files: files, Commit: bundlestest.Commit, Issued: issued}, sequence, false)
	w.must(err)
	return doc
}

// release is a whole release, signed and vouched for.
func (w *world) release(files map[string][]byte, sequence int64, by ...string) map[string][]byte {
	w.t.Helper()
	return w.signed(files, w.doc(files, sequence), sequence, by...)
}

func (w *world) signed(files map[string][]byte, doc []byte, sequence int64, by ...string) map[string][]byte {
	w.t.Helper()
	all := w.fleet.Sign(w.t, files, doc, by...)
	w.vouch(all, doc, sequence, w.clock, w.now.Now())
	if w.attest != nil {
		if statement := w.attest(files); statement != nil {
			all[bundles.AttestationFile(statement)] = statement
		}
	}
	if w.extra != nil {
		w.extra(all)
	}
	return all
}

func (w *world) vouch(all map[string][]byte, doc []byte, sequence int64, by *bundles.KeySigner, at time.Time) {
	w.t.Helper()
	fresh, err := bundles.BuildFresh(doc, sequence, at, 24*time.Hour)
	w.must(err)
	all[bundles.FreshPath], all[bundles.FreshSigPath] = fresh, bundlestest.Bundle(w.t, by, fresh)
}

// bad is what an attacker wants in force, signed as it should be.
func (w *world) bad() map[string][]byte { return w.release(wrong(), w.sequence+1, w.sign...) }

// good is the next good release.
func (w *world) good() map[string][]byte {
	w.committer = w.owner
	w.sequence += 2
	return w.release(right(w.sequence), w.sequence, w.sign...)
}

// push makes files the newest that the source has.
func (w *world) push(files map[string][]byte) {
	w.t.Helper()
	tip, err := w.channel.Refresh(w.t.Context())
	w.must(err)
	message := "Release\n\n" + bundles.ReleaseTrailer + bundles.DigestOf(files[bundles.ReleasePath]) + "\n"
	_, err = w.channel.Append(w.t.Context(), tip, files, message, w.now.Now())
	w.must(err)
}

func (w *world) state() string { return filepath.Join(w.dir, "state") }

// start begins the agent.
func (w *world) start() {
	w.t.Helper()
	w.loop = reconciler.New(reconciler.Deps{
		Load: w.load, StateDir: w.state(), Host: w, Backend: w.kernel, Reporter: w, Counters: w, Watcher: w, Clock: w.now,
		Log:        slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelError + 1})),
		Identified: func(string, string, enforce.Postures) {}, Audited: func([]enforce.AuditedPolicy) {}, Notify: func(string) {}, Version: "test",
	})
	w.stop = running.Start(w.t, w.loop)
}

func (w *world) halt() {
	if w.stop != nil {
		w.stop()
	}
}

func (w *world) load(context.Context) (*reconciler.Settings, error) {
	cfg := config.Default()
	cfg.StateDir, cfg.DriftInterval = w.state(), time.Hour
	own, err := w.tenant("", w.state())
	if err != nil {
		return nil, err
	}
	settings := &reconciler.Settings{Config: &cfg, HostID: "web-1", Tenants: []reconciler.Tenant{*own}}
	if w.team != nil {
		team, err := w.team.tenant("shop", filepath.Join(w.state(), "tenants", "shop"))
		if err != nil {
			return nil, err
		}
		settings.Tenants = append(settings.Tenants, *team)
	}
	return settings, nil
}

func (w *world) tenant(name, dir string) (*reconciler.Tenant, error) {
	pinned, err := bundles.LoadTrust(w.trust)
	if err != nil {
		return nil, err
	}
	out := &reconciler.Tenant{
		Name: name, Look: config.Source{URL: w.url, Interval: time.Hour, Timeout: 10 * time.Second},
		Cache: bundles.NewCache(filepath.Join(dir, "cache")), Seen: bundles.NewStateFile(dir), Trusts: bundles.NewTrustStore(dir),
	}
	out.Trust, out.Links, out.Lost = out.Trusts.Load(pinned)
	if w.transport == "oci" {
		out.Source, err = oci.New(oci.Config{Reference: w.url, Channel: "stable", Now: w.now.Now})
	} else {
		out.Source, err = git.New(git.Config{URL: w.url, Channel: "stable"})
	}
	return out, err
}

func (w *world) sync(reload bool) *control.SyncResult {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	result, err := w.loop.Sync(ctx, control.SyncRequest{Wait: true, Reload: reload})
	w.must(err)
	return result
}

// conditions is what the report says, as "Type" or "Type/error", with the tenant in front.
func conditions(r *fleet.Report) []string {
	var out []string
	for _, c := range r.Conditions {
		text := c.Type
		if c.Error != "" {
			text += "/" + c.Error
		}
		if c.Tenant != "" {
			text = c.Tenant + ":" + text
		}
		out = append(out, text)
	}
	return out
}

var errInForce = errors.New("not in force")

// inForce says why the newest good release is not what the kernel decides by, or nil.
func (w *world) inForce() error {
	for path, want := range map[string]enforce.Verdict{secret: enforce.Deny, free: enforce.Permit, fmt.Sprintf("/etc/n%d", w.sequence): enforce.Deny} {
		op := enforce.Operation{Class: policies.ClassFile, Path: path, Read: true, Source: enforce.ProcessSource{Executable: "/bin/cat"}}
		if got := w.kernel.Decide(enforce.Host, op).Verdict; got != want {
			return fmt.Errorf("%w: %s: %v", errInForce, path, got)
		}
	}
	return nil
}

// nothingInForce says what of an attacker's release is in force on a host that lost all it had.
func (w *world) nothingInForce() error {
	op := enforce.Operation{Class: policies.ClassFile, Path: free, Read: true, Source: enforce.ProcessSource{Executable: "/bin/cat"}}
	if got := w.kernel.Decide(enforce.Host, op).Verdict; got != enforce.Permit {
		return fmt.Errorf("%s: %v, by a release that should be refused", free, got)
	}
	return nil
}

// The host and everybody else whom the loop knows.

func (w *world) Node() (inventory.Node, bool) {
	labels := map[string]string{"kubernetes.io/hostname": "web-1"}
	return inventory.Node{Hostname: "web-1", Kernel: "6.12", LSMs: []string{"bpf"}, Labels: labels}, true
}

func (w *world) Changed() <-chan struct{}                             { return nil }
func (w *world) Resolve([]string) map[string]string                   { return nil }
func (w *world) Protect() []enforce.ProtectPair                       { return nil }
func (w *world) Spooled() (*fleet.Report, error)                      { return nil, nil }
func (w *world) Flush(context.Context) error                          { return nil }
func (w *world) Collect(context.Context) error                        { return nil }
func (w *world) Counts() []fleet.EventCount                           { return nil }
func (w *world) Losses() map[string]uint64                            { return nil }
func (w *world) Round(reconciler.Cause, time.Duration, *fleet.Report) {}
func (w *world) Pulled(bool)                                          {}
func (w *world) Repaired(enforce.DriftKind)                           {}

// Report and Sent are the fleet's status repository; what a real one does is fleet/statusref's business.
func (w *world) Report(_ context.Context, mail reconciler.Mail) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(mail.Report.Releases) > 0 {
		w.sent = mail.Report
	}
	return nil
}

// Sent implements reconciler.Recaller.
func (w *world) Sent(ctx context.Context, _ string) (*fleet.Report, error) {
	if w.hanging {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, nil
}

func (w *world) Refused(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[name]++
}

func (w *world) counted(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused[name]
}

// with is a copy of a release with one file replaced; nil removes it.
func with(files map[string][]byte, path string, content []byte) map[string][]byte {
	out := maps.Clone(files)
	out[path] = content
	if content == nil {
		delete(out, path)
	}
	return out
}

func contains(list []string, want string) bool { return slices.Contains(list, want) }
