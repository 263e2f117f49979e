// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"slices"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// Matching one rule against one operation: its object, its source, its modifiers. This is the plain
// reading of SEMANTICS "Objects" and "Modifiers"; the automaton and the rows are tested against it.

// matchObject says whether the rule's object is the operation's: by name, or by the mark of a file that an
// exact-path Block protects. The answer is the spelling that matched.
func matchObject(r *Rule, op *Operation) (spelling string, byMark, ok bool) {
	switch r.Rule.Object.Kind {
	case policies.ObjectPath, policies.ObjectExecName, policies.ObjectPattern, policies.ObjectDirectory:
		for _, o := range r.Objects {
			if op.Path != "" && matchPath(r.Rule.Object, o, op.Path) {
				return o, false, true
			}
		}
		for _, m := range op.Marks {
			if protectsFile(r) && slices.Contains(r.Objects, m) {
				return m, true, true
			}
		}
	case policies.ObjectProtocol, policies.ObjectCapability, policies.ObjectPreset:
		v := r.Rule.Object.Value
		return v, false, slices.Contains(op.Names, v)
	case policies.ObjectSyscall:
		spelling, ok := matchSyscall(r, op)
		return spelling, false, ok
	case policies.ObjectFlow:
		f, err := r.Rule.Object.Flow()
		return r.Rule.Object.Value, false, err == nil && op.Flow != nil && f.Matches(op.Flow.Peer, op.Flow.Protocol, op.Flow.Port, op.Flow.Interface)
	case policies.ObjectDomain:
		v := r.Rule.Object.Value
		return v, false, slices.ContainsFunc(op.Names, func(name string) bool { return underDomain(v, name) })
	}
	return "", false, false
}

// protectsFile: "An exact-path Block protects the file, not one spelling of its name".
func protectsFile(r *Rule) bool {
	return r.Rule.Action == policies.ActionBlock && r.Rule.Object.Kind == policies.ObjectPath
}

// matchPath matches one spelling of a path object.
func matchPath(object policies.Object, spelling, path string) bool {
	switch object.Kind {
	case policies.ObjectPath:
		return path == spelling
	case policies.ObjectExecName:
		return path[strings.LastIndexByte(path, '/')+1:] == spelling
	case policies.ObjectPattern:
		if !strings.HasPrefix(path, literalPrefix(spelling)) {
			return false
		}
		pattern, err := policies.ParsePattern(spelling)
		return err == nil && pattern.Match(path)
	case policies.ObjectDirectory:
		return inDirectory(spelling, object.Recursive, path)
	default:
		return false
	}
}

// inDirectory: a directory "covers the directory itself and its direct children; recursive: true every
// descendant". The root directory itself is "/", every other one is written without its trailing slash.
func inDirectory(dir string, recursive bool, path string) bool {
	if path == "/" || path == strings.TrimSuffix(dir, "/") {
		return path == dir || path+"/" == dir
	}
	below, ok := strings.CutPrefix(path, dir)
	return ok && below != "" && (recursive || !strings.Contains(below, "/"))
}

// underDomain: "the queried name and its subdomains, case-insensitively".
func underDomain(domain, name string) bool {
	domain = strings.ToLower(strings.Trim(domain, "."))
	name = strings.ToLower(strings.Trim(name, "."))
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// matchSource says whether the rule holds for who acts: the executable, or a script it was started from.
//
// "A source that is renamed or linked keeps its class for Block and gains none for Allow": a mark of the
// executable's or script's inode counts for Block and Audit rules only.
func matchSource(r *Rule, source *ProcessSource) (spelling string, byMark, ok bool) {
	if len(r.Rule.Sources) == 0 {
		return "", false, true
	}
	for _, name := range source.Names() {
		if slices.Contains(r.Sources, name) {
			return name, false, true
		}
	}
	if dir, ok := source.within(r.Directories); ok {
		return dir, false, true
	}
	if r.Rule.Action == policies.ActionAllow {
		return "", false, false
	}
	for _, m := range source.Marks() {
		if slices.Contains(r.Sources, m) {
			return m, true, true
		}
	}
	return "", false, false
}

// fires says whether the rule's modifiers let it fire.
//
// "For Allow the modifiers narrow what is granted; for Block and Audit they name what is left alone."
// Both are one question: an Allow fires for what satisfies every modifier, a Block or Audit for everything
// else. "both: owner and read" against "not (owner and read)" is the case that the table spells out.
func fires(r *policies.Rule, op *Operation) bool {
	within := satisfies(r, op)
	if r.Action == policies.ActionAllow {
		return within
	}
	return !hasModifier(r) || !within
}

func hasModifier(r *policies.Rule) bool {
	return r.OwnerOnly || r.ReadOnly || r.NoTerminal || r.HasArgs
}

func satisfies(r *policies.Rule, op *Operation) bool {
	switch {
	case r.OwnerOnly && !op.Owner:
		return false
	case r.ReadOnly && !op.Read:
		return false
	case r.NoTerminal && op.Terminal:
		return false
	// A file that is mapped is given no arguments that could be known.
	case r.HasArgs && (op.Mapped || !allListed(r.AllowedArgs, op.Args)):
		return false
	}
	return true
}

// allListed: "every argument after argv[0] is listed"; order and repetition do not count.
func allListed(allowed, args []string) bool {
	for _, a := range args {
		if !slices.Contains(allowed, a) {
			return false
		}
	}
	return true
}
