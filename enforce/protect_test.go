// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
)

// debian is what inventory/host finds on a Debian host with containers.
func debian() inventory.Programs {
	return inventory.Programs{
		Init:       []string{"/usr/lib/systemd/systemd"},
		Shells:     []string{"/usr/bin/dash", "/usr/bin/bash"},
		Consoles:   []string{"/usr/sbin/agetty"},
		Logins:     []string{"/usr/bin/login"},
		Elevate:    []string{"/usr/bin/su", "/usr/bin/sudo"},
		SSH:        []string{"/usr/sbin/sshd"},
		Runtimes:   []string{"/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/sbin/runc"},
		Kubelet:    []string{"/usr/bin/kubelet"},
		Files:      []string{"/etc/passwd", "/usr/lib/x86_64-linux-gnu/libc.so.6"},
		LoginFiles: []string{"/etc/shadow", "/etc/pam.d/sshd", "/etc/ssh/sshd_config"},
		Modules:    []string{"/usr/lib/x86_64-linux-gnu/security/pam_unix.so"},
		SSHFiles:   []string{"/etc/ssh/ssh_host_ed25519_key"},
		Ports:      []string{"22"},
	}
}

// agent are the paths of an agent with the usual configuration.
func agent() enforce.AgentPaths {
	return enforce.AgentPaths{
		Binary: "/usr/bin/musterd",
		Files:  []string{"/var/lib/muster/", "/var/lib/muster/seen", "/run/muster.sock", "/var/log/muster/events.jsonl"},
		Reads: []string{
			"/etc/muster/musterd.yaml", "/etc/muster/labels.yaml", "/var/lib/muster/host.key", "/proc/kallsyms",
			"/sys/kernel/security/lsm", enforce.ProcessFiles + "stat",
		},
	}
}

func TestCheckProtect(t *testing.T) {
	t.Parallel()
	pairs := enforce.DefaultProtect(debian(), agent())
	directory, pattern := policies.ObjectDirectory, policies.ObjectPattern
	strict := with(posture(enforce.PostureBlock))
	for _, tc := range []struct {
		name string
		rs   *enforce.Ruleset
		held []string // what the reason must mention; none when not held
	}{
		{"nothing", rules(nil), nil},
		{"L16: the login shell is blocked", rules(nil, block(process, "/usr/bin/bash", of("l16")), block(process, "/opt/t/bin/tool", of("l16"))), []string{"l16", "/usr/bin/bash"}},
		{"L16, narrowed", rules(nil, block(process, "/opt/t/bin/tool", of("l16"))), nil},
		{"a shell by its other name", rules(nil, block(process, "/bin/sh", also("/usr/bin/dash"))), []string{"/bin/sh", "/usr/bin/dash"}},
		{"a shell blocked for a web server only", rules(nil, block(process, "/usr/bin/bash", from("/usr/sbin/nginx"))), nil},
		{"a shell blocked for sshd", rules(nil, block(process, "/usr/bin/bash", from("/usr/sbin/sshd"))), []string{"sshd", "bash"}},
		{"a shell for its owner only", rules(nil, block(process, "/usr/bin/bash", ownerOnly)), []string{"bash"}},
		{"a shell without terminal only", rules(nil, block(process, "/usr/bin/bash", noTerminal)), []string{"bash"}},
		{"a shell with certain arguments only", rules(nil, block(process, "/usr/bin/bash", args("-l"))), []string{"bash"}},
		{"running the C library", rules(nil, block(process, "/usr/lib/x86_64-linux-gnu/libc.so.6")), []string{"map", "libc"}},
		{"running what lies beside the C library", rules(nil, block(process, "/usr/lib/", as(directory), recursive, from("/usr/sbin/nginx"))), nil},
		{"what a session is started with", rules(nil, useBlock("setuid")), []string{"setuid"}},
		{"what a web server does not need", rules(nil, useBlock("setuid", from("/usr/sbin/nginx"))), nil},
		{"raw sockets", rules(nil, useBlock("net_raw")), nil},
		{"all programs", rules(nil, block(process, "/usr/", as(directory), recursive)), []string{"/usr/"}},
		{"the runtime", rules(nil, block(process, "runc", as(policies.ObjectExecName))), []string{"runc"}},
		{"the kubelet", rules(nil, block(process, "/usr/bin/kube*", as(policies.ObjectPattern))), []string{"kubelet"}},
		{"the agent", rules(nil, block(process, "/usr/bin/musterd")), []string{"musterd"}},
		{"the agent's state", rules(nil, block(file, "/var/lib/", as(directory), recursive)), []string{"/var/lib/muster/", "musterd"}},
		{"the agent's state, for others to read only", rules(nil, block(file, "/var/lib/muster/", as(directory), recursive, readOnly)), []string{"musterd"}},
		{"writing accounts", rules(nil, block(file, "/etc/passwd", readOnly)), nil},
		{"reading accounts", rules(nil, block(file, "/etc/passwd")), []string{"/etc/passwd"}},
		{"reading hashes", rules(nil, block(file, "/etc/shadow")), []string{"/etc/shadow"}},
		{"reading hashes, but not for those who log in", rules(nil, block(file, "/etc/shadow"),
			allow(file, "/etc/shadow", from("/usr/bin/login", "/usr/bin/su", "/usr/bin/sudo", "/usr/sbin/sshd"))), nil},
		{"auditing hashes", rules(nil, audit("/etc/shadow")), nil},
		{"a dry run", rules(nil, block(process, "/usr/bin/bash", dryRun)), nil},
		{"an allow-list of the whole host", rules(strict, allow(process, "/usr/bin/bash")), []string{"posture is block"}},
		{"the same under audit posture", rules(nil, allow(process, "/usr/bin/bash")), nil},
		{"an allow-list for sshd", rules(strict, allow(process, "/usr/bin/bash", from("/usr/sbin/sshd"))), []string{"/usr/sbin/sshd", "posture is block"}},
		{"the careless release", rules(nil, block(process, "/usr/bin/", as(directory), recursive)), []string{"/usr/bin/", "Hint: let the rule name"}},
		{"the configuration", rules(nil, block(file, "/etc/muster/", as(directory), recursive)), []string{"musterd must be able to read /etc/muster/"}},
		{"keys, wherever they are", rules(nil, block(file, "/**/*.key", as(pattern))), []string{"musterd", "/var/lib/muster/host.key"}},
		{"the marks", rules(nil, block(file, "/var/lib/muster/seen")), []string{"musterd", "read and write"}},
		{"where the kernel keeps its symbols", rules(nil, block(file, "/proc/kallsyms")), []string{"musterd"}},
		{"the kernel's own directory", rules(nil, block(file, "/sys/kernel/", as(directory), recursive)), []string{"musterd", "/sys/kernel/security/lsm"}},
		{"the log of events", rules(nil, block(file, "/var/log/muster/", as(directory), recursive)), []string{"musterd"}},
		{"any process's start", rules(nil, block(file, "/proc/*/stat", as(pattern))), []string{"/proc/PID/stat"}},
		{"one process's start", rules(nil, block(file, "/proc/4711/stat")), nil},
		{"all of /proc", rules(nil, block(file, "/proc/", as(directory), recursive)), []string{"/proc/"}},
		{"TCP", rules(nil, socketBlock("tcp")), []string{"sshd must be able to use TCP sockets"}},
		{"streams, local ones too", rules(nil, socketBlock("stream")), []string{"stream"}},
		{"streams of sshd", rules(nil, socketBlock("stream", from("/usr/sbin/sshd"))), []string{"sshd"}},
		{"datagrams", rules(nil, socketBlock("dgram")), []string{"Unix datagram sockets"}},
		{"all protocols", rules(nil, socketBlock("all")), []string{"sshd", "TCP"}},
		{"UDP", rules(nil, socketBlock("udp")), nil},
		{"TCP of a web server", rules(nil, socketBlock("tcp", from("/usr/sbin/nginx"))), nil},
		{"devices", rules(nil, block(file, "/dev/", as(directory))), []string{"/dev/"}},
		{"terminals", rules(nil, block(file, "/dev/pts/", as(directory))), []string{"/dev/pts/0"}},
		{"new terminals", rules(nil, block(file, "/dev/ptmx")), []string{"/dev/ptmx"}},
		{"writing nowhere", rules(nil, block(file, "/dev/null", readOnly)), []string{"/dev/null"}},
		{"nothing, for its owner", rules(nil, block(file, "/dev/null", ownerOnly)), []string{"/dev/null"}},
		{"disks", rules(nil, block(file, "/dev/sd*", as(pattern))), nil},
		{"PAM's modules", rules(nil, block(file, "/usr/lib/x86_64-linux-gnu/security/", as(directory))), []string{"pam_unix.so"}},
		{"mapping PAM's modules", rules(nil, block(process, "/**/pam_*.so", as(pattern))), []string{"map", "pam_unix.so"}},
		{"host keys", rules(nil, block(file, "/etc/ssh/ssh_host_*", as(pattern))), []string{"sshd", "ssh_host_ed25519_key"}},
		{"host keys, but not for sshd", rules(nil, block(file, "/etc/ssh/ssh_host_*", as(pattern)),
			allow(file, "/etc/ssh/ssh_host_ed25519_key", from("/usr/sbin/sshd"))), nil},
		{"an audited ruleset says it all the same", rules(with(auditing), block(process, "/usr/bin/bash")), []string{"bash"}},
	} {
		held := enforce.CheckProtect(tc.rs, pairs)
		if (held != "") != (tc.held != nil) {
			t.Errorf("%s: held %q", tc.name, held)
		}
		for _, word := range tc.held {
			if !strings.Contains(held, word) {
				t.Errorf("%s: %q does not mention %q", tc.name, held, word)
			}
		}
	}
}

// TestHold: a held ruleset decides the same and denies nothing, and the original is left as it was.
func TestHold(t *testing.T) {
	t.Parallel()
	rs := rules(nil, block(process, "/usr/bin/bash"))
	held := rs.Hold("because")
	if rs.Mode != enforce.ModeEnforce || rs.Held != "" || held.Mode != enforce.ModeAudit || held.Held != "because" {
		t.Errorf("%+v, %+v", rs, held)
	}
	if d := held.Decide(op(process, "/usr/bin/bash", "")); d.Verdict != enforce.Permit || !d.WouldDeny || d.Rule != 0 {
		t.Errorf("%+v", d)
	}
}

// TestResolveProtect: a pair written through a symlink notices a Block of what is behind it, and the other
// way round.
func TestResolveProtect(t *testing.T) {
	t.Parallel()
	pairs := enforce.ProtectFor("/bin/login", "/bin/bash")
	aliases := map[string]string{"/bin/login": "/usr/bin/login", "/bin/bash": "/usr/bin/bash"}
	for _, path := range enforce.ProtectPaths(pairs) {
		if aliases[path] == "" {
			t.Errorf("unexpected path %s", path)
		}
	}
	pairs = enforce.ResolveProtect(append(pairs, pairs...), aliases)
	if len(pairs) != 2 {
		t.Errorf("pairs %v", pairs)
	}
	for _, rs := range []*enforce.Ruleset{
		rules(nil, block(process, "/usr/bin/bash")),
		rules(nil, block(process, "/bin/bash", also("/usr/bin/bash"), from("/usr/bin/login"))),
		rules(nil, block(file, "/usr/bin/bash")),
	} {
		if held := enforce.CheckProtect(rs, pairs); !strings.Contains(held, "/usr/bin/login must be able to") {
			t.Errorf("held %q", held)
		}
	}
}

func useBlock(name string, options ...ruleOption) enforce.Rule {
	return block(capabilities, name, append(options, as(policies.ObjectCapability))...)
}

func socketBlock(protocol string, options ...ruleOption) enforce.Rule {
	return block(policies.ClassNetwork, protocol, append(options, as(policies.ObjectProtocol))...)
}
