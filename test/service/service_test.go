// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/test/vm"
)

// patience is far more than anything here takes on an emulated machine.
const patience = 10 * time.Minute

// TestService follows the README on each kernel, and then boots what came of it.
func TestService(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	bin := t.TempDir()
	for _, name := range []string{"muster", "musterd"} {
		if err := vm.BuildStatic(t.Context(), filepath.Join(bin, name), "build", "../../cmd/"+name); err != nil {
			t.Fatal(err)
		}
	}
	installed := map[string]string{
		filepath.Join(bin, "muster"):   "/usr/bin/muster",
		filepath.Join(bin, "musterd"):  "/usr/sbin/musterd",
		"../../deploy/musterd.service": "/etc/systemd/system/musterd.service",
		"testdata/hostkeys.conf":       "/etc/systemd/system/ssh.service.d/hostkeys.conf",
	}
	for _, kernel := range vm.Kernels() {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			t.Run("protected", func(t *testing.T) { protected(t, kernel, installed) }) //nolint:paralleltest // its machine is gone before the next one boots
			kept := t.TempDir()
			t.Run("joined", func(t *testing.T) { joined(t, kernel, installed, kept) }) //nolint:paralleltest // its machine is gone before the next one boots
			if !t.Failed() {
				t.Run("rebooted", func(t *testing.T) { rebooted(t, kernel, installed, kept) }) //nolint:paralleltest // needs what the first one kept
			}
		})
	}
}

// host is a machine under systemd.
type host struct {
	*vm.Machine
	t *testing.T
}

func boot(t *testing.T, kernel string, files map[string]string) *host {
	t.Helper()
	return &host{vm.Start(t, vm.Options{Kernel: kernel, LSM: vm.BPF, Systemd: true, Files: files}), t}
}

// bash runs a command line that must succeed, in the policy repository if there is one, and answers what it printed.
func (h *host) bash(script string) string {
	h.t.Helper()
	out, code := h.try(script)
	if code != 0 {
		h.t.Fatalf("%s\nexit code %d\n%s", script, code, out)
	}
	return out
}

func (h *host) try(script string) (string, int) {
	h.t.Helper()
	c := vm.Sh("cd /root/policies 2>/dev/null || cd /root; exec 2>&1; " + script)
	c.Env = []string{"MUSTER_PASSWORD=service", "SYSTEMD_PAGER="}
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	r, err := h.Run(ctx, c)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, r.Stdout)
	}
	return r.Stdout, r.Code
}

// wait repeats a command line until it succeeds and its output matches.
func (h *host) wait(script, pattern string) {
	h.t.Helper()
	wanted := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		out, code := h.try(script)
		if code == 0 && wanted.MatchString(out) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			journal, _ := h.try("systemctl --no-pager status musterd; journalctl --no-pager -u musterd | tail -n 40")
			h.t.Fatalf("never: %s shows %s\nexit code %d\n%s\n%s", script, pattern, code, out, journal)
		}
	}
}

func (h *host) denied(when string) {
	h.t.Helper()
	if out, code := h.try("cat /srv/secret"); code == 0 || !strings.Contains(out, "Permission denied") {
		h.t.Errorf("%s: reading the secret: exit code %d, %s", when, code, out)
	}
	h.bash("cat /srv/open")
}

// pid is the agent's.
func (h *host) pid() string {
	h.t.Helper()
	return strings.TrimSpace(h.bash("systemctl show --value --property MainPID musterd"))
}

const policy = `apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: secret}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: "*"}}
  file: {matchPaths: [{path: /srv/secret}]}
  process: {matchPaths: [{path: /usr/bin/apt-get}]}
  network: {matchProtocols: [{protocol: icmp}]}
  action: Block
`

// joined is the way of the README, with hosting by ssh on the same machine.
func joined(t *testing.T, kernel string, files map[string]string, kept string) {
	h := boot(t, kernel, files)
	h.wait("systemctl is-active basic.target ssh", "^active\nactive")
	if out, code := h.try("systemd-analyze verify musterd.service"); code != 0 || strings.Contains(out, "musterd") {
		t.Errorf("systemd-analyze verify: exit code %d\n%s", code, out)
	}
	h.bash(`set -e
mkdir -p -m 700 /root/.ssh /etc/muster
ssh-keygen -q -t ed25519 -N '' -f /etc/muster/ssh.key; cp /etc/muster/ssh.key.pub /root/.ssh/authorized_keys
echo "localhost $(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)" | tee /root/.ssh/known_hosts >/etc/muster/known_hosts
git init -q --bare -b main /srv/policies.git; git init -q --bare -b main /srv/status.git; mkdir /root/policies
echo s >/srv/secret; echo o >/srv/open; ln /srv/secret /srv/link`)
	h.bash(`set -e
git init -q -b main . && git config user.name Ada && git config user.email ada@example.org && git remote add origin file:///srv/policies.git
muster init --fleet service && rm policies/protect-shadow.yaml && muster keys new secops-1`)
	if err := h.WriteFile("/root/policies/policies/secret.yaml", []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	h.bash("git add . && git commit -qm Start && muster publish")
	h.bash(`muster join ssh://root@localhost/srv/policies.git --status ssh://root@localhost/srv/status.git --host-id web-1 \
  --git-ssh-key /etc/muster/ssh.key --git-known-hosts /etc/muster/known_hosts --trust-sha256 $(sha256sum trust.yaml | cut -d' ' -f1)`)
	h.wait("systemctl is-active musterd", "^active")
	h.wait("muster status", "Enforced")
	h.denied("after joining")
	if out, code := h.try("cat /srv/link"); code == 0 || !strings.Contains(out, "Permission denied") {
		t.Errorf("reading by another name of the file: exit code %d, %s", code, out)
	}
	h.confined()
	h.bash(`echo "web-1 $(cut -d' ' -f1,2 /var/lib/muster/host.key.pub)" >>policies/hosts.allowed_signers && git commit -qam Enrol && muster publish && muster sync`)
	h.wait("muster roll --repo file:///srv/status.git", "(?m)web-1.*Enforced")
	h.lives()
	h.quiet()
	h.bash("tar -C / -cf /root/kept.tar etc/muster var/lib/muster")
	if err := h.Get(kept, "/root/kept.tar"); err != nil {
		t.Fatal(err)
	}
}

// confined holds the running agent against what the unit says.
func (h *host) confined() {
	h.t.Helper()
	status := h.bash("cat /proc/" + h.pid() + "/status")
	for _, want := range []string{`(?m)^NoNewPrivs:\s+1$`, `(?m)^Seccomp:\s+2$`, `(?m)^CapAmb:\s+0+$`} {
		if !regexp.MustCompile(want).MatchString(status) {
			h.t.Errorf("the agent's status lacks %s:\n%s", want, status)
		}
	}
	bound := regexp.MustCompile(`(?m)^CapBnd:\s+(\S+)$`).FindStringSubmatch(status)
	effective := regexp.MustCompile(`(?m)^CapEff:\s+(\S+)$`).FindStringSubmatch(status)
	if bound == nil || effective == nil || bound[1] != effective[1] {
		h.t.Errorf("the agent's capabilities: bounded %v, effective %v", bound, effective)
	}
	if out, code := h.try("nsenter --target " + h.pid() + " --mount touch /etc/written"); code == 0 || !strings.Contains(out, "Read-only") {
		h.t.Errorf("the agent may write to /etc: exit code %d, %s", code, out)
	}
}

// lives goes through what happens to a service.
func (h *host) lives() {
	h.t.Helper()
	h.bash("systemctl reload musterd && systemctl is-active musterd")
	h.wait("muster status", "Enforced")
	h.denied("after a reload")

	before := h.pid()
	h.bash("kill -KILL " + before)
	h.denied("after a kill")
	h.wait("test $(systemctl show --value --property MainPID musterd) -gt 0 && muster status", "Enforced")
	if h.pid() == before {
		h.t.Error("the agent was not started again")
	}

	h.bash("systemctl restart musterd")
	h.wait("muster status", "Enforced")
	h.denied("after a restart")

	// A stopped process answers no watchdog.
	h.bash(`mkdir -p /run/systemd/system/musterd.service.d && printf '[Service]\nWatchdogSec=20s\n' >/run/systemd/system/musterd.service.d/watchdog.conf
systemctl daemon-reload && systemctl restart musterd`)
	h.wait("muster status", "Enforced")
	before = h.pid()
	h.bash("kill -STOP " + before)
	h.denied("while the agent hangs")
	h.wait("pid=$(systemctl show --value --property MainPID musterd); test $pid -gt 0 && test $pid != "+before+" && muster status", "Enforced")
	h.bash("rm -r /run/systemd/system/musterd.service.d && systemctl daemon-reload && systemctl restart musterd")
	h.wait("muster status", "Enforced")

	h.bash("systemctl stop musterd")
	h.denied("while the agent is stopped")
	h.bash("systemctl start musterd")
	h.wait("muster status", "Enforced")
}

// bounds are what the kernel answers to what the unit does not let the agent do.
var bounds = regexp.MustCompile(strings.Join([]string{
	"not permitted", "ermission denied", "ead-only file system", unix.ENOSYS.Error(),
}, "|"))

// quiet says that nothing which the unit's bounds refuse was wanted.
func (h *host) quiet() {
	h.t.Helper()
	for line := range strings.Lines(h.bash("journalctl --no-pager -o cat -u musterd")) {
		if bounds.MatchString(line) {
			h.t.Errorf("the agent says: %s", line)
		}
	}
}

// rebooted boots a host that has joined: it enforces before the system is up, with nobody there to pull from.
func rebooted(t *testing.T, kernel string, installed map[string]string, kept string) {
	files := maps.Clone(installed)
	archive := filepath.Join(kept, "root/kept.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", kept, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files[filepath.Join(kept, "etc/muster")] = "/etc/muster"
	files[filepath.Join(kept, "var/lib/muster")] = "/var/lib/muster"
	enabled := filepath.Join(kept, "sysinit.target.wants")
	if err := os.Mkdir(enabled, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/systemd/system/musterd.service", filepath.Join(enabled, "musterd.service")); err != nil {
		t.Fatal(err)
	}
	files[enabled] = "/etc/systemd/system/sysinit.target.wants"
	for _, name := range []string{"secret", "open"} {
		path := filepath.Join(kept, name)
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		files[path] = "/srv/" + name
	}
	h := boot(t, kernel, files)
	h.wait("systemctl is-active basic.target", "^active")
	h.denied("when the system is up")
	const at = "systemctl show --value --property ActiveEnterTimestampMonotonic "
	h.bash("test $(" + at + "musterd) -gt 0 && test $(" + at + "musterd) -le $(" + at + "sysinit.target)")
	if out, _ := h.try("journalctl --no-pager -b -o cat"); strings.Contains(out, "ordering cycle") {
		t.Errorf("the unit breaks the order of the boot:\n%s", out)
	}
	h.wait("muster status", "(?s)Enforced.*Unreachable|Unreachable.*Enforced")
	h.bash("systemctl stop musterd")
	h.denied("after the stop")
}
