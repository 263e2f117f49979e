// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/vm"
)

// patience is far more than anything here takes on a machine that is not overloaded.
const patience = 3 * time.Minute

// world is a fleet with a repository, and one host of it with its agent.
type world struct {
	t      *testing.T
	dir    string
	binary string
	fleet  *bundlestest.Fleet
	clock  *bundles.KeySigner // vouches for freshness
	repo   *repo
	client *control.Client
	probe  *prober

	agent *exec.Cmd
	ended chan error // of the agent, once
	said  *bytes.Buffer

	sequence int64             // of the newest good release
	files    map[string][]byte // all its files
	tip      plumbing.Hash     // its commit
	older    plumbing.Hash     // the one before
}

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	dir := workingDirectory(t)
	w := &world{
		t: t, dir: dir, binary: binary, fleet: bundlestest.New(t, "alice", "bob"), clock: bundlestest.NewKey(t),
		repo: newRepo(t, filepath.Join(dir, "policy.git")), probe: newProber(t),
		client: control.NewClient(filepath.Join(dir, "musterd.sock")), sequence: 100,
	}
	for _, name := range []string{"secret-0", "secret-1", "open"} {
		w.must(os.WriteFile(w.path(name), []byte(name), 0o644))
	}
	w.writeGoodConfig()
	t.Cleanup(w.kill)
	return w
}

// workingDirectory is one that the test need not remove inside a lab machine: what is blocked there stays blocked
// after the agent has ended, and goes with the machine.
func workingDirectory(t *testing.T) string {
	t.Helper()
	if !vm.Inside() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("", "hostile-") //nolint:usetesting // removing it is what the policy forbids
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// at lets a row's own test do the failing.
func (w *world) at(t *testing.T) { w.t, w.repo.t = t, t }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func backendName() string {
	if vm.Inside() {
		return "bpflsm"
	}
	return "observe"
}

func (w *world) goodConfig() string {
	return fmt.Sprintf(`source: {url: "file://%[1]s/policy.git", interval: 1h, jitter: 0s, timeout: 1m}
trust: %[1]s/trust.yaml
labels: %[1]s/labels.yaml
stateDir: %[1]s/state
cacheDir: %[1]s/state/cache
hostKey: %[1]s/state/host.key
socket: %[1]s/musterd.sock
driftInterval: 1h
events: {output: file, file: %[1]s/events.jsonl}
metrics: {socket: %[1]s/metrics.sock}
backend: %[2]s
bpffs: /sys/fs/bpf/muster
`, w.dir, backendName())
}

// goodTrust needs both signers for anything, and somebody who vouches that releases are fresh.
func (w *world) goodTrust() string {
	return w.fleet.TrustYAML(w.t, 2, 2, "freshness:\n  maxAge: 26h\n  signers:\n"+bundlestest.Signer(w.t, "ci-clock", w.clock))
}

// writeGoodConfig puts every file of configuration right, whatever lies in its place.
func (w *world) writeGoodConfig() {
	w.t.Helper()
	for name, content := range map[string]string{"musterd.yaml": w.goodConfig(), "trust.yaml": w.goodTrust(), "labels.yaml": "role: web\n"} {
		w.must(os.RemoveAll(w.path(name)))
		w.must(os.WriteFile(w.path(name), []byte(content), 0o600))
	}
}

// policy blocks reading and writing a file.
func (w *world) policy(file string) []byte {
	return fmt.Appendf(nil, "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: keep-out}\nspec:\n"+
		"  nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n  file:\n    matchPaths:\n      - path: %s\n  action: Block\n", w.path(file))
}

// secret is the file that the newest good release blocks; the releases take turns.
func (w *world) secret() string { return w.path(fmt.Sprintf("secret-%d", w.sequence/2%2)) }

// wrong is a policy of a release that must not come into force: it would block what may be read.
func (w *world) wrong() map[string][]byte { return map[string][]byte{"p.yaml": w.policy("open")} }

// next is the sequence of a release that must not be accepted; good ones are even.
func (w *world) next() int64 { return w.sequence + 1 }

// signed puts both signatures and a fresh word beside a document.
func (w *world) signed(files map[string][]byte, doc []byte, sequence int64) map[string][]byte {
	w.t.Helper()
	all := w.fleet.Sign(w.t, files, doc, "alice", "bob")
	fresh, err := bundles.BuildFresh(doc, sequence, time.Now(), 24*time.Hour)
	w.must(err)
	w.vouch(all, fresh, w.clock)
	return all
}

func (w *world) vouch(all map[string][]byte, fresh []byte, by *bundles.KeySigner) {
	w.t.Helper()
	all[bundles.FreshPath] = fresh
	all[bundles.FreshSigPath] = bundlestest.Bundle(w.t, by, fresh)
}

// release is a whole release of these policies.
func (w *world) release(files map[string][]byte, sequence int64) map[string][]byte {
	w.t.Helper()
	return w.signed(files, w.fleet.Doc(w.t, files, sequence), sequence)
}

// push makes the files the tip of the channel, after the newest good release.
func (w *world) push(files map[string][]byte, extra ...entry) plumbing.Hash {
	w.t.Helper()
	tip := w.repo.commit(w.repo.tree(files, extra...), w.tip)
	w.repo.point(tip)
	return tip
}

// publish makes the next good release.
func (w *world) publish() {
	w.t.Helper()
	w.sequence += 2
	w.files = w.release(map[string][]byte{"p.yaml": w.policy(filepath.Base(w.secret()))}, w.sequence)
	w.older, w.tip = w.tip, w.push(w.files)
}

// capabilities is what deploy/musterd.service leaves the agent.
const capabilities = "-all,+bpf,+perfmon,+net_admin,+mac_admin,+sys_admin,+dac_read_search,+sys_resource,+sys_ptrace,+syslog"

// launch starts the agent.
func (w *world) launch() {
	w.t.Helper()
	w.said = &bytes.Buffer{}
	command := []string{w.binary, "--config", w.path("musterd.yaml")}
	if os.Getuid() == 0 {
		command = append([]string{"setpriv", "--bounding-set", capabilities, "--no-new-privs"}, command...)
	}
	w.agent = exec.Command(command[0], command[1:]...)
	w.agent.WaitDelay = 10 * time.Second
	w.agent.Stderr = w.said
	w.must(w.agent.Start())
	w.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(w.agent, w.ended)
}

// run starts the agent and waits until its first look at the source is over.
func (w *world) run() {
	w.t.Helper()
	w.launch()
	w.wait("the agent's first look at the source", func() bool {
		status, err := w.client.Status(w.t.Context())
		return err == nil && !status.LastPoll.IsZero()
	})
}

// kill ends the agent as hard as can be.
func (w *world) kill() {
	if w.agent == nil {
		return
	}
	_ = w.agent.Process.Kill()
	<-w.ended
	w.agent = nil
}

// wait looks every few milliseconds.
func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case err := <-w.ended:
			w.agent = nil
			w.t.Fatalf("the agent ended (%v) before %s:\n%s", err, what, w.said)
		case <-deadline:
			w.kill() // so that its words can be read
			w.t.Fatalf("never: %s\n%s", what, w.said)
		case <-tick.C:
		}
	}
}

func (w *world) status() *control.Status {
	w.t.Helper()
	status, err := w.client.Status(w.t.Context())
	w.must(err)
	return status
}

func (w *world) sync(reload bool) (*control.SyncResult, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.client.Sync(ctx, control.SyncRequest{Wait: true, Reload: reload})
}

// conditions is what the report says, as "Type" or "Type/error".
func (w *world) conditions() []string {
	w.t.Helper()
	var out []string
	for _, c := range w.status().Report.Conditions {
		out = append(out, said(c))
	}
	return out
}

func said(c fleet.Condition) string {
	if c.Error == "" {
		return c.Type
	}
	return c.Type + "/" + c.Error
}

// enforced says why the newest good release is not what the kernel decides by, or nil.
func (w *world) enforced() error {
	if !vm.Inside() {
		return nil // nothing enforces here
	}
	if err := w.probe.try(w.secret()); !errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("the blocked file: %w", errors.Join(err, errNotDenied))
	}
	for _, free := range []string{w.path("open"), w.path(fmt.Sprintf("secret-%d", 1-w.sequence/2%2))} {
		if err := w.probe.try(free); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(free), err)
		}
	}
	return nil
}

var errNotDenied = errors.New("not denied")

// mendFiles undoes what a row did to the repository and to the state directory; what is lost stays lost.
func (w *world) mendFiles() {
	w.t.Helper()
	if _, err := os.Stat(w.repo.dir + awayExt); err == nil {
		w.must(os.Rename(w.repo.dir+awayExt, w.repo.dir))
	}
	w.must(os.RemoveAll(filepath.Join(w.repo.dir, "packed-refs")))
	for _, dir := range []string{"state", "state/cache"} {
		if info, err := os.Stat(w.path(dir)); err == nil && info.IsDir() {
			w.must(os.Chmod(w.path(dir), 0o700))
		} else {
			w.must(os.RemoveAll(w.path(dir)))
		}
	}
	if info, err := os.Stat(w.path("state/seen")); err == nil && info.IsDir() {
		w.must(os.Remove(w.path("state/seen")))
	}
	// A host key that nobody can use is replaced by a new one, and the host enrolled again.
	if key, err := os.ReadFile(w.path("state/host.key")); err == nil && !bytes.HasPrefix(key, []byte("-----BEGIN")) {
		w.must(os.Remove(w.path("state/host.key")))
	} else if err == nil {
		w.must(os.Chown(w.path("state/host.key"), os.Getuid(), -1))
		w.must(os.Chmod(w.path("state/host.key"), 0o600))
	}
}

// awayExt is added to the name of a repository that is out of reach.
const awayExt = ".away"

// heal puts everything right again, and the next good release must come into force.
func (w *world) heal() error {
	w.t.Helper()
	w.writeGoodConfig()
	w.mendFiles()
	w.publish()
	if w.agent == nil {
		w.run()
	}
	result, err := w.sync(true)
	if err != nil {
		return err
	}
	if want := map[string]control.Outcome{"bpflsm": control.OutcomeEnforced, "observe": control.OutcomeObserved}[backendName()]; result.Outcome != want {
		return fmt.Errorf("%s: %+v", result.Outcome, result.Problem)
	}
	if result.Release == nil || result.Release.Sequence != w.sequence {
		return fmt.Errorf("%w: %+v", errNotNewest, result.Release)
	}
	for _, c := range result.Report.Conditions {
		if slices.Contains([]string{"Refused", "Unreachable", "Trouble", "NotApplied", "Stale", "Revoked", "Distrusted", "Unprotected"}, c.Type) {
			return fmt.Errorf("%w: %+v", errStillWrong, c)
		}
	}
	return w.enforced()
}

var (
	errNotNewest  = errors.New("not the newest release")
	errStillWrong = errors.New("still reported")
)

// with is a copy of a release with one file replaced; nil removes it.
func with(files map[string][]byte, path string, content []byte) map[string][]byte {
	out := maps.Clone(files)
	out[path] = content
	if content == nil {
		delete(out, path)
	}
	return out
}
