// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"path"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
)

// AgentPaths are the agent's own files.
type AgentPaths struct {
	// Binary is the agent's executable, resolved.
	Binary string
	// Files it must read and write: state, cache, socket, pinned objects. A directory, with its trailing
	// slash, stands for a file in it.
	Files []string
	// Reads it must read: configuration, trust, credentials. A path below ProcessFiles is one of its own process.
	Reads []string
}

// ProcessFiles is the directory in /proc that stands for that of any process: the number is the kernel's limit
// (PID_MAX_LIMIT), which no process reaches, so no rule that means one process is taken to mean this one.
const ProcessFiles = "/proc/4194304/"

// The kinds of sockets, objects of class network.
const (
	socketTCP        = "TCP sockets"
	socketUnixStream = "Unix stream sockets"
	socketUnixDgram  = "Unix datagram sockets"
)

// sockets are the names of SEMANTICS that a kind of sockets counts as.
var sockets = map[string][]string{
	socketTCP:        {"tcp", "stream", "all"},
	socketUnixStream: {"stream"},
	socketUnixDgram:  {"dgram"},
}

// DefaultProtect is the list of what keeps a host manageable: the agent, init, the login shell chain, sshd,
// the container runtime, the kubelet.
func DefaultProtect(p inventory.Programs, agent AgentPaths) []ProtectPair {
	var list protectList
	self := nonEmpty(agent.Binary)
	list.programs(p, self)
	list.sessions(p)
	list.use(p.Init, privileged, "kill", "setpcap", "sys_admin", "sys_boot", "sys_chroot", "sys_resource", "net_admin")
	list.use(slices.Concat(p.Logins, p.Elevate), privileged)
	list.use(p.SSH, privileged, "sys_chroot", "net_bind_service")
	list.use(p.Runtimes, privileged, "kill", "setpcap", "sys_admin", "sys_chroot", "net_admin", "mknod")
	list.use(p.Kubelet, privileged, "kill", "sys_admin", "net_admin")
	list.use(self, privileged[:2], "sys_admin", "bpf", "perfmon", "net_admin", "syslog")
	for _, sources := range [][]string{p.Init, p.Consoles, p.Logins, p.SSH, p.Elevate, p.Shells, p.Runtimes, p.Kubelet, self} {
		list.read(sources, p.Files)
	}
	list.socket(slices.Concat(p.Init, p.Logins, p.Elevate, p.Runtimes, p.Kubelet), socketUnixStream, socketUnixDgram)
	list.socket(slices.Concat(p.SSH, p.Runtimes, p.Kubelet), socketTCP)
	list.socket(self, socketUnixStream) // the control socket
	list.read(self, agent.Reads)
	for _, file := range agent.Files {
		if strings.HasSuffix(file, "/") {
			file += "state"
		}
		list.add(ProtectPair{Class: policies.ClassFile, Source: agent.Binary, Object: file, Write: true})
	}
	return list.pairs
}

// programs: who runs whom.
func (l *protectList) programs(p inventory.Programs, self []string) {
	l.run(p.Init, p.Init, p.Consoles, p.Logins, p.SSH, p.Runtimes, p.Kubelet, p.Shells, self)
	l.run(p.Consoles, p.Logins)
	l.run(p.Logins, p.Logins, p.Shells)
	l.run(p.SSH, p.SSH, p.Logins, p.Shells)
	l.run(p.Elevate, p.Elevate, p.Logins, p.Shells)
	l.run(p.Shells, p.Shells, p.Elevate)
	l.run(p.Runtimes, p.Runtimes)
	l.run(p.Kubelet, p.Kubelet, p.Runtimes)
	l.run(self, self)
}

// sessions: what beginning a session takes beside programs: accounts, PAM, terminals, host keys, a port.
func (l *protectList) sessions(p inventory.Programs) {
	begin := slices.Concat(p.Logins, p.Elevate, p.SSH)
	l.read(begin, p.LoginFiles)
	l.read(begin, p.Modules)
	l.read(p.SSH, p.SSHFiles)
	l.open(slices.Concat(p.Init, p.Consoles, begin, p.Shells, p.Runtimes, p.Kubelet), "/dev/null")
	l.open(slices.Concat(p.Init, p.Consoles, p.Logins), "/dev/console", "/dev/tty1")
	l.open(slices.Concat(begin, p.Shells), "/dev/tty", "/dev/pts/0")
	l.open(slices.Concat(p.Elevate, p.SSH), "/dev/ptmx")
	l.read(slices.Concat(p.Init, begin), []string{ProcessFiles + "stat", ProcessFiles + "cgroup"})
	l.open(begin, ProcessFiles+"loginuid") // pam_loginuid ends a session that it cannot name
	for _, source := range p.SSH {
		l.add(ProtectPair{Class: policies.ClassIngress, Source: source, Object: strings.Join(p.Ports, portsOr)})
	}
}

// portsOr stands between the ports of which one must be reachable.
const portsOr = " or "

// privileged is what starting somebody else's session takes; the first two, what reading every file does.
var privileged = []string{"dac_override", "dac_read_search", "chown", "fowner", "setgid", "setuid"}

// protectList collects pairs, each once.
type protectList struct {
	pairs []ProtectPair
	seen  map[ProtectPair]bool
}

func (l *protectList) add(p ProtectPair) {
	if l.seen == nil {
		l.seen = map[ProtectPair]bool{}
	}
	if p.Source != "" && p.Object != "" && !l.seen[p] {
		l.seen[p] = true
		l.pairs = append(l.pairs, p)
	}
}

// run: each source runs each object. Whoever logs in is not the owner of the shell, so users count too.
func (l *protectList) run(sources []string, objects ...[]string) {
	for _, source := range sources {
		for _, object := range slices.Concat(objects...) {
			l.add(ProtectPair{Class: policies.ClassProcess, Source: source, Object: object, AnyUser: true})
		}
	}
}

// use: each source uses each capability.
func (l *protectList) use(sources, capabilities []string, more ...string) {
	for _, source := range sources {
		for _, name := range slices.Concat(capabilities, more) {
			l.add(ProtectPair{Class: policies.ClassCapabilities, Source: source, Object: name, AnyUser: true})
		}
	}
}

// open: each source reads and writes each device or file of /proc, whoever runs it.
func (l *protectList) open(sources []string, objects ...string) {
	for _, source := range sources {
		for _, object := range objects {
			l.add(ProtectPair{Class: policies.ClassFile, Source: source, Object: object, Write: true, AnyUser: true})
		}
	}
}

// socket: each source uses each kind of socket.
func (l *protectList) socket(sources []string, kinds ...string) {
	for _, source := range sources {
		for _, kind := range kinds {
			l.add(ProtectPair{Class: policies.ClassNetwork, Source: source, Object: kind, AnyUser: true})
		}
	}
}

// read: each source reads each object, and maps it when it is a library.
func (l *protectList) read(sources, objects []string) {
	for _, source := range sources {
		for _, object := range objects {
			l.add(ProtectPair{Class: policies.ClassFile, Source: source, Object: object})
			if strings.Contains(path.Base(object), ".so") {
				l.add(ProtectPair{Class: policies.ClassProcess, Source: source, Object: object, Map: true, AnyUser: true})
			}
		}
	}
}

func nonEmpty(path string) []string {
	if path == "" {
		return nil
	}
	return []string{path}
}
