// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
)

// ProtectPair is one thing that must stay possible for the host to be manageable: Source does Class to
// Object. The paths are what the kernel sees: resolved.
type ProtectPair struct {
	// Class is process (running Object), file, capabilities (Object is a capability's name), or ingress (somebody
	// must reach Source at the TCP port Object).
	Class  policies.Class `json:"class"`
	Source string         `json:"source"`
	Object string         `json:"object"`
	// Write asks for writing, not only for reading, of class file.
	Write bool `json:"write,omitempty"`
	// Map, of class process, asks for mapping Object executable, as programs do with their libraries.
	Map bool `json:"map,omitempty"`
	// AnyUser asks for it for users who do not own Object, too: a login shell is not run by its owner.
	AnyUser bool `json:"anyUser,omitempty"`
}

// AgentPaths are the agent's own files.
type AgentPaths struct {
	// Binary is the agent's executable, resolved.
	Binary string
	// Files it must read and write: state, cache, socket, pinned objects. A directory, with its trailing
	// slash, stands for a file in it.
	Files []string
}

// DefaultProtect is the list of what keeps a host manageable: the agent, init, the login shell chain, sshd,
// the container runtime, the kubelet.
func DefaultProtect(p inventory.Programs, agent AgentPaths) []ProtectPair {
	var list protectList
	list.run(p.Init, p.Init, p.Consoles, p.Logins, p.SSH, p.Runtimes, p.Kubelet, p.Shells, nonEmpty(agent.Binary))
	list.run(p.Consoles, p.Logins)
	list.run(p.Logins, p.Logins, p.Shells)
	list.run(p.SSH, p.SSH, p.Logins, p.Shells)
	list.run(p.Elevate, p.Elevate, p.Logins, p.Shells)
	list.run(p.Shells, p.Shells, p.Elevate)
	list.run(p.Runtimes, p.Runtimes)
	list.run(p.Kubelet, p.Kubelet, p.Runtimes)
	list.run(nonEmpty(agent.Binary), nonEmpty(agent.Binary))
	for _, source := range p.SSH {
		list.add(ProtectPair{Class: policies.ClassIngress, Source: source, Object: portSSH})
	}
	list.use(p.Init, privileged, "kill", "setpcap", "sys_admin", "sys_boot", "sys_chroot", "sys_resource", "net_admin")
	list.use(slices.Concat(p.Logins, p.Elevate), privileged)
	list.use(p.SSH, privileged, "sys_chroot", "net_bind_service")
	list.use(p.Runtimes, privileged, "kill", "setpcap", "sys_admin", "sys_chroot", "net_admin", "mknod")
	list.use(p.Kubelet, privileged, "kill", "sys_admin", "net_admin")
	list.use(nonEmpty(agent.Binary), privileged[:2], "sys_admin", "bpf", "perfmon", "net_admin", "syslog")
	for _, sources := range [][]string{p.Init, p.Consoles, p.Logins, p.SSH, p.Elevate, p.Shells, p.Runtimes, p.Kubelet, nonEmpty(agent.Binary)} {
		list.read(sources, p.Files)
	}
	for _, sources := range [][]string{p.Logins, p.Elevate, p.SSH} {
		list.read(sources, p.LoginFiles)
	}
	for _, file := range agent.Files {
		if strings.HasSuffix(file, "/") {
			file += "state"
		}
		list.add(ProtectPair{Class: policies.ClassFile, Source: agent.Binary, Object: file, Write: true})
	}
	return list.pairs
}

// portSSH is where people log in from afar.
const portSSH = "22"

// privileged is what starting somebody else's session takes; the first two, what reading every file does.
var privileged = []string{"dac_override", "dac_read_search", "chown", "fowner", "setgid", "setuid"}

// ProtectFor is what a (source, object) pair of the agent's configuration stands for: the source may run the
// object and read it, whoever the user is.
func ProtectFor(source, object string) []ProtectPair {
	return []ProtectPair{
		{Class: policies.ClassProcess, Source: source, Object: object, AnyUser: true},
		{Class: policies.ClassFile, Source: source, Object: object, AnyUser: true},
	}
}

// ProtectPaths are the paths of the pairs, to be resolved for ResolveProtect.
func ProtectPaths(pairs []ProtectPair) []string {
	var paths []string
	for _, p := range pairs {
		paths = append(paths, p.Source)
		if isPathClass(p.Class) {
			paths = append(paths, p.Object)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// ResolveProtect puts the pairs' paths as the kernel sees them: aliases maps a path to what its symlinks lead
// to. Without that, a pair that somebody wrote as /bin/bash would not notice a Block of /usr/bin/bash.
func ResolveProtect(pairs []ProtectPair, aliases map[string]string) []ProtectPair {
	var list protectList
	for _, p := range pairs {
		p.Source = cmp.Or(aliases[p.Source], p.Source)
		p.Object = cmp.Or(aliases[p.Object], p.Object)
		list.add(p)
	}
	return list.pairs
}

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

// String is the pair as a sentence.
func (p ProtectPair) String() string {
	verb := "read"
	switch {
	case p.Class == policies.ClassIngress:
		return fmt.Sprintf("somebody must be able to reach %s at port %s", p.Source, p.Object)
	case p.Class == policies.ClassCapabilities:
		verb = "use"
	case p.Map:
		verb = "map"
	case p.Class == policies.ClassProcess:
		verb = "run"
	case p.Write:
		verb = "read and write"
	}
	return fmt.Sprintf("%s must be able to %s %s", cmp.Or(p.Source, "everything"), verb, p.Object)
}

// CheckProtect decides every pair and returns "" when the ruleset leaves all of them possible. Otherwise it
// says which pair the ruleset would deny and which rule does so: the ruleset has to be held.
func CheckProtect(rs *Ruleset, pairs []ProtectPair) string {
	strict := *rs
	strict.Mode = ModeEnforce
	type object struct {
		class policies.Class
		name  string
	}
	parts := map[object]*Ruleset{} // many sources need the same objects
	for _, p := range pairs {
		if p.Class == policies.ClassIngress {
			if why := strict.unreachable(p.Object); why != "" {
				return fmt.Sprintf("%s, but %s", p, why)
			}
			continue
		}
		for _, op := range p.operations() {
			key := object{p.Class, p.Object}
			few := parts[key]
			if few == nil {
				few = strict.about(&op)
				parts[key] = few
			}
			if d := few.Decide(op); d.Verdict == Deny {
				return fmt.Sprintf("%s, but %s", p, few.cause(d, op.Class))
			}
		}
	}
	return ""
}

// about are the rules that a verdict about op's object can depend on, whoever acts: those that match it, and of the other
// Allow rules, which make an allow-list whatever they name, one for each list of sources.
func (rs *Ruleset) about(op *Operation) *Ruleset {
	few := *rs
	few.Rules = nil
	lists := map[string]bool{}
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Class != op.Class {
			continue
		}
		_, _, matches := matchObject(r, op)
		if r.Rule.Action == policies.ActionAllow && !matches {
			sources := strings.Join(r.Sources, "\x00")
			matches = !lists[sources]
			lists[sources] = true
		}
		if matches {
			few.Rules = append(few.Rules, *r)
		}
	}
	return &few
}

// operations are all the ways in which the pair may be tried: with and without a terminal, by the owner
// and, if asked, by others; a program with no argument and with one that no rule lists.
func (p ProtectPair) operations() []Operation {
	var ops []Operation
	for bits := range 8 {
		op := atIndex(p.Class, bits)
		op.Class, op.Path, op.Source = p.Class, p.Object, ProcessSource{Executable: p.Source}
		if !isPathClass(p.Class) {
			op.Path, op.Names = "", []string{p.Object}
		}
		needless := !op.Owner && !p.AnyUser || op.Mapped != p.Map ||
			!op.Read && p.Class == policies.ClassFile && !p.Write
		if needless {
			continue
		}
		ops = append(ops, op)
		if p.Class == policies.ClassProcess {
			op.Args = []string{"\x00"}
			ops = append(ops, op)
		}
	}
	return ops
}

// cause says in words what denied.
func (rs *Ruleset) cause(d Decision, class policies.Class) string {
	switch {
	case d.Rule >= 0:
		r := &rs.Rules[d.Rule]
		return fmt.Sprintf("rule %d of %s blocks it (%s)", r.Rule.Index, describe(r.Policy), describeObject(r.Rule.Object))
	case d.Unbuildable:
		return "its path cannot be built"
	default:
		return fmt.Sprintf("no rule of the %s allow-list names it and the posture is %s", class, PostureBlock)
	}
}

// describe is a policy's identity for a person.
func describe(id policies.ID) string {
	if id.Namespace == "" {
		return fmt.Sprintf("%s %s", id.Kind, id.Name)
	}
	return fmt.Sprintf("%s %s/%s", id.Kind, id.Namespace, id.Name)
}

func describeObject(o policies.Object) string {
	switch {
	case o.Kind == policies.ObjectDirectory && o.Recursive:
		return fmt.Sprintf("%s %s, recursive", o.Kind, o.Value)
	default:
		return fmt.Sprintf("%s %s", o.Kind, o.Value)
	}
}
