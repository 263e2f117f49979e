// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// ProtectPair is one thing that must stay possible for the host to be manageable: Source does Class to
// Object. The paths are what the kernel sees: resolved.
type ProtectPair struct {
	// Class is process (running Object), file, network (Object is one of the kinds of sockets below), capabilities
	// (Object is a capability's name), or ingress (somebody must reach Source at the TCP port Object).
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

// String is the pair as a sentence.
func (p ProtectPair) String() string {
	verb := "read"
	switch {
	case p.Class == policies.ClassIngress:
		return fmt.Sprintf("somebody must be able to reach %s at port %s", p.Source, p.Object)
	case p.Class == policies.ClassCapabilities, p.Class == policies.ClassNetwork:
		verb = "use"
	case p.Map:
		verb = "map"
	case p.Class == policies.ClassProcess:
		verb = "run"
	case p.Write:
		verb = "read and write"
	}
	object := p.Object
	if rest, found := strings.CutPrefix(object, ProcessFiles); found {
		object = "/proc/PID/" + rest
	}
	return fmt.Sprintf("%s must be able to %s %s", cmp.Or(p.Source, "everything"), verb, object)
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
				return p.because(why)
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
				return p.because(few.cause(d, op.Class))
			}
		}
	}
	return ""
}

// because is the reason of a hold, and what to do about it.
func (p ProtectPair) because(cause string) string {
	return fmt.Sprintf("%s, but %s. Hint: %s, and release again; until then nothing is denied on this host", p, cause, protectHint)
}

// protectHint is what whoever wrote the release can do.
const protectHint = "let the rule name the programs that it is for (fromSource) or fewer objects"

// about are the rules that a verdict about op's object can depend on, whoever acts: those that match it, and of the other
// Allow rules, which make an allow-list whatever they name, one for each list of sources.
func (rs *Ruleset) about(op *Operation) *Ruleset {
	few := *rs
	few.Rules = nil
	lists := map[string]bool{}
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Class != op.Class || r.DryRun {
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
			op.Path, op.Names = "", p.names()
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

// names is what the kernel knows an object without a path by.
func (p ProtectPair) names() []string {
	if names, found := sockets[p.Object]; found && p.Class == policies.ClassNetwork {
		return names
	}
	return []string{p.Object}
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
