// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/vm"
)

// resisted are acts of root's that a host which protects itself refuses. On one that does not each succeeds: they are done
// there first, and undone by what follows the bar.
var resisted = []string{
	"touch /var/lib/muster/other | rm /var/lib/muster/other",
	"touch -c -d yesterday /etc/muster/musterd.yaml |",
	"echo >>/etc/muster/trust.yaml | sed -i '$d' /etc/muster/trust.yaml",
	"mkdir /etc/systemd/system/musterd.service.d | rmdir /etc/systemd/system/musterd.service.d",
	"systemctl set-property --runtime musterd CPUWeight=90; ls /run/systemd/system.control/musterd.service.d/* | systemctl revert musterd",
	"systemctl disable musterd | systemctl enable musterd",
	"mount -t tmpfs none /etc/systemd/system | umount /etc/systemd/system",
	"mv /etc/systemd /etc/systemd2 | mv /etc/systemd2 /etc/systemd",
	"mount --bind /root /var/lib/muster | umount /var/lib/muster",
	"mv /usr/sbin/musterd /usr/sbin/musterd2 | mv /usr/sbin/musterd2 /usr/sbin/musterd",
	"(echo 0 >/proc/sys/kernel/ftrace_enabled) | echo 1 >/proc/sys/kernel/ftrace_enabled",
	"(echo 1 >/sys/fs/cgroup/system.slice/musterd.service/cgroup.freeze) | echo 0 >/sys/fs/cgroup/system.slice/musterd.service/cgroup.freeze",
	"kill -URG $(systemctl show --value --property MainPID musterd); kill -STOP $(systemctl show --value --property MainPID musterd) | kill -CONT $(systemctl show --value --property MainPID musterd)",
	"rm /sys/fs/bpf/muster/*/link_mark_freed | systemctl restart musterd",
}

// acts does each of them, and says whether it must succeed.
func (h *host) acts(succeed bool) {
	h.t.Helper()
	for _, act := range resisted {
		do, undo, _ := strings.Cut(act, " |")
		out, code := h.try(do)
		if succeed != (code == 0) {
			h.t.Errorf("%s: exit code %d, %s", do, code, out)
		}
		if code == 0 && strings.TrimSpace(undo) != "" {
			h.bash(undo)
		}
	}
}

// protected is a host that protects itself, under a systemd that knows nothing of it.
func protected(t *testing.T, kernel string, files map[string]string) {
	h := boot(t, kernel, files)
	h.wait("systemctl is-active basic.target", "^active")
	h.bash(`set -e
git init -q --bare -b main /srv/policies.git; mkdir /root/policies; echo s >/srv/secret; echo o >/srv/open`)
	h.bash(`set -e
git init -q -b main . && git config user.name Ada && git config user.email ada@example.org && git remote add origin file:///srv/policies.git
muster init --fleet service && rm policies/protect-shadow.yaml && muster keys new secops-1`)
	if err := h.WriteFile("/root/policies/policies/secret.yaml", []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	h.bash("git add . && git commit -qm Start && muster publish")
	h.bash("muster join file:///srv/policies.git --host-id web-1 --trust-sha256 $(sha256sum trust.yaml | cut -d' ' -f1)")
	h.wait("muster status", "Enforced")
	h.acts(true)
	h.wait("muster status", "Enforced")

	h.bash("echo 'protectSelf: true' >>/etc/muster/musterd.yaml && systemctl restart musterd")
	h.wait("muster status && ls /sys/fs/bpf/muster/*/link_self_open", "Enforced")
	h.acts(false)
	h.denied("after what was resisted")
	h.bash("mount --bind /run /mnt && umount /mnt && mkdir /srv/root && mount --rbind /sys /srv/root && mount --make-rslave /srv/root && umount -R /srv/root")
	if out, code := h.try("/usr/sbin/musterd"); code == 0 || !strings.Contains(out, "systemctl start musterd") {
		t.Errorf("another agent: exit code %d, %s", code, out)
	}
	h.restarts("protected")
	h.takesNoOther()
	h.standsDown()
	h.restarts("after the window")
	if out, _ := h.try("journalctl --no-pager -o cat -u musterd | grep -e level=ERROR -e ' not permitted'"); out != "" {
		t.Errorf("the agent says:\n%s", out)
	}
	h.powersOff()
}

// systemctl must succeed, or the journal says why it did not.
func (h *host) systemctl(verb string) {
	h.t.Helper()
	if out, code := h.try("systemctl " + verb + " musterd"); code != 0 {
		journal, _ := h.try("journalctl --no-pager -n 60; ls -l /proc/1/exe; cat /proc/1/cgroup")
		h.t.Fatalf("systemctl %s: exit code %d, %s\n%s", verb, code, out, journal)
	}
}

// restarts does what systemd does to a service.
func (h *host) restarts(when string) {
	h.t.Helper()
	before := h.pid()
	h.systemctl("restart")
	h.wait("muster status", "Enforced")
	if h.pid() == before {
		h.t.Errorf("%s: not restarted", when)
	}
	h.systemctl("reload")
	h.systemctl("stop")
	h.denied(when + ": stopped")
	// What cleans for systemd runs in the agent's unit, and is not the agent.
	state := h.bash("ls -R /var/lib/muster")
	if out, code := h.try("systemctl clean --what=all musterd"); code == 0 {
		h.t.Errorf("%s: cleaned: %s", when, out)
	}
	if left := h.bash("ls -R /var/lib/muster"); left != state {
		h.t.Errorf("%s: of the state is left: %s", when, left)
	}
	if out, code := h.try("touch /var/lib/muster/other"); code == 0 {
		h.t.Errorf("%s: without an agent the state can be changed: %s", when, out)
	}
	h.systemctl("start")
	h.wait("muster status", "Enforced")
	if out, code := h.try("touch /var/lib/muster/other"); code == 0 {
		h.t.Errorf("%s: the state can be changed: %s", when, out)
	}
}

// takesNoOther has process 1 start the genuine executable, as the agent's unit, with another configuration: it is the agent
// then, and would let go of everything.
func (h *host) takesNoOther() {
	h.t.Helper()
	h.bash(`set -e
mkdir -p /etc/systemd/system.conf.d /root/units; cd /root/units
printf '[Manager]\nManagerEnvironment=SYSTEMD_UNIT_PATH=/root/units:\n' >/etc/systemd/system.conf.d/other.conf
sed 's|^ExecStart=.*|ExecStart=/usr/sbin/musterd --config /root/units/other.yaml|' /etc/systemd/system/musterd.service >musterd.service
(grep -v -e ^protectSelf -e ^mode /etc/muster/musterd.yaml; echo 'mode: off') >other.yaml; chmod 600 other.yaml
systemctl daemon-reexec && systemctl show --property ExecStart musterd | grep -q other.yaml`)
	if out, code := h.try("systemctl restart musterd"); code == 0 {
		h.t.Errorf("the agent takes another configuration: %s", out)
	}
	if out := h.bash("journalctl --no-pager -o cat -u musterd | tail -n 40"); !strings.Contains(out, "does not know /root/units/other.yaml") {
		h.t.Errorf("of the other configuration it says:\n%s", out)
	}
	h.denied("with another configuration")
	// What process 1 has in its environment stays there.
	h.bash("ls /sys/fs/bpf/muster/*/link_self_open && rm -r /etc/systemd/system.conf.d/other.conf /root/units && systemctl daemon-reload")
	h.systemctl("restart")
	h.wait("muster status", "Enforced")
}

// standsDown replaces the executable within the window of a signed statement.
func (h *host) standsDown() {
	h.t.Helper()
	h.bash("muster stand-down sign /root/upgrade.json --host web-1 --reason upgrade --for 100s && muster stand-down /root/upgrade.json")
	h.wait("muster status -o json", "StoodDown")
	h.bash("touch /var/lib/muster/other && rm /var/lib/muster/other && cp /usr/sbin/musterd /usr/sbin/musterd.new && mv /usr/sbin/musterd.new /usr/sbin/musterd && systemctl restart musterd")
	h.wait("muster status -o json", "StoodDown")
	if out, code := h.try("muster stand-down /root/upgrade.json"); code == 0 || !strings.Contains(out, "used") {
		h.t.Errorf("once more: exit code %d, %s", code, out)
	}
	h.wait("muster status -o json | grep -c StoodDown || true", "^0")
	h.wait("touch /var/lib/muster/other 2>/dev/null && rm /var/lib/muster/other; test ! -e /var/lib/muster/other && ls /sys/fs/bpf/muster/*/link_self_open", "self_open")
}

// powersOff ends the machine as its owner does.
func (h *host) powersOff() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	_, _ = h.Run(ctx, vm.Sh("systemctl poweroff")) // the machine may be gone before it answers
	off := regexp.MustCompile(`(?i)power down|system halted`)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !off.MatchString(h.Console()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("it does not power off:\n%s", h.Console())
		}
	}
	if strings.Contains(h.Console(), "Failed unmounting") {
		h.t.Errorf("not clean:\n%s", h.Console())
	}
}
