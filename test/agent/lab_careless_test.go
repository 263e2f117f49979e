// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/vm"
)

// loginPort is where the lab's sshd listens.
const loginPort = "2022"

// careless is a policy for every host that blocks what its body says.
func careless(body string) map[string][]byte {
	return map[string][]byte{"p.yaml": []byte("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: careless}\n" +
		"spec:\n  nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n  action: Block\n  " + body + "\n")}
}

// TestLabCareless: a release that would lock everybody out, the agent included, leaves the host manageable: people log in,
// musterd starts anew, and the next release is taken.
func TestLabCareless(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	l := newLab(t)
	l.sshd()
	secret := l.file("secret")
	l.publishNext(blocking("keep-out", secret))
	l.run(agentOne)
	l.settle()
	l.denied(secret)
	l.login()

	l.publishNext(careless("process: {matchDirectories: [{dir: /usr/bin/, recursive: true}]}"))
	l.hold("/usr/bin/", "careless", "Hint:")
	l.login()
	l.audited()
	l.again()
	l.state(fleet.StateHeld)
	l.login()

	for _, body := range []string{
		fmt.Sprintf("file: {matchDirectories: [{dir: %s/, recursive: true}]}", l.dir),
		"file: {matchPatterns: [{pattern: /**/*.key}]}",
		fmt.Sprintf("file: {matchPaths: [{path: %s/state/host.key}, {path: %[1]s/state/seen}]}", l.dir),
		"file: {matchPaths: [{path: /proc/kallsyms}]}",
		"file: {matchDirectories: [{dir: /sys/kernel/, recursive: true}]}",
		fmt.Sprintf("file: {matchPaths: [{path: %s}]}", l.events),
		"network: {matchProtocols: [{protocol: stream}]}",
		"file: {matchPatterns: [{pattern: /proc/*/stat}]}",
	} {
		l.publishNext(careless(body))
		l.hold("careless")
		l.again()
		l.state(fleet.StateHeld)
	}
	for _, body := range []string{
		"file: {matchDirectories: [{dir: /dev/, recursive: true}]}",
		"file: {matchPatterns: [{pattern: /**/pam_*.so}]}",
		"network: {matchProtocols: [{protocol: tcp}]}",
	} {
		l.publishNext(careless(body))
		l.hold("careless")
		l.login()
	}

	l.publishNext(blocking("keep-out", secret))
	l.settle()
	l.state(fleet.StateEnforced)
	l.denied(secret)
	l.login()
	l.claimedBeforeItsConfiguration()
}

// hold syncs: the newest release is held, and the reason mentions these words.
func (l *lab) hold(words ...string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	result, err := l.client.Sync(ctx, control.SyncRequest{Wait: true})
	l.must(err)
	if result.Outcome != control.OutcomeHeld || result.Report.State != fleet.StateHeld {
		l.t.Fatalf("%s, %s: %+v", result.Outcome, result.Report.State, result.Problem)
	}
	l.t.Logf("held: %s", result.Problem.Message)
	for _, word := range words {
		if !strings.Contains(result.Problem.Message, word) {
			l.t.Errorf("held %q, which does not mention %q", result.Problem.Message, word)
		}
	}
}

// again stops the agent and starts it anew, as an upgrade does.
func (l *lab) again() {
	l.t.Helper()
	began := time.Now()
	l.end(syscall.SIGTERM)
	l.run(agentOne)
	l.t.Logf("musterd answers again after %v", time.Since(began).Round(time.Millisecond))
}

// audited says that events tell what the held release would have denied.
func (l *lab) audited() {
	l.t.Helper()
	for _, r := range l.records() {
		if r.PolicyName == "careless" && r.Action == "Audit (Block)" && r.Result == "Passed" && strings.HasPrefix(r.Resource, "/usr/bin/") {
			return
		}
	}
	l.t.Error("no event tells what would have been denied")
}

// sshd starts a real one, with PAM, for user1's key.
func (l *lab) sshd() {
	l.t.Helper()
	for _, name := range []string{"id", "host"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(l.dir, name)).CombinedOutput()
		if err != nil {
			l.t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	config := filepath.Join(l.dir, "sshd_config")
	keys := filepath.Join(l.files, "authorized_keys") // sshd reads it as the user
	public, err := os.ReadFile(filepath.Join(l.dir, "id.pub"))
	l.must(err)
	l.must(os.Chmod(l.files, 0o755))
	l.must(os.WriteFile(keys, public, 0o644))
	l.must(os.WriteFile(config, fmt.Appendf(nil, "Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s\nUsePAM yes\nStrictModes no\nPidFile none\n", loginPort, l.dir, keys), 0o600))
	daemon := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config)
	daemon.Stderr = l.t.Output()
	daemon.WaitDelay = time.Second
	l.must(daemon.Start())
	l.t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
}

// login logs in through sshd on a terminal of its own, and becomes root there.
func (l *lab) login() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	args := []string{
		"-tt", "-p", loginPort, "-i", filepath.Join(l.dir, "id"), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ConnectionAttempts=20", "-o", "LogLevel=ERROR", "user1@127.0.0.1", "echo user $(id -un); su - -c 'echo root $(id -un)'",
	}
	out, err := exec.CommandContext(ctx, "ssh", args...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "user user1") || !strings.Contains(string(out), "root root") {
		l.t.Fatalf("log in: %v: %s", err, out)
	}
}

// claimedBeforeItsConfiguration: what no list could foresee, another name of the configuration's inode that a rule protects,
// keeps everybody from reading it but the agent that starts.
func (l *lab) claimedBeforeItsConfiguration() {
	l.t.Helper()
	link := filepath.Join(l.files, "link")
	l.must(os.Link(l.config(), link))
	l.publishNext(blocking("keep-out", link))
	l.settle()
	l.denied(l.config())
	l.again()
	l.state(fleet.StateEnforced)
	l.denied(l.config())
	l.publishNext(blocking("keep-out", filepath.Join(l.files, "secret"))) // the test's directory is to be removed
	l.settle()
}
