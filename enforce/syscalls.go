// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// Class syscalls only reports: "audit only, whatever the action says". Its object is a system call and, when the
// rule names one, the path that is the call's first. Its sources may be directories, which no other class has.

// Directory is a source that stands for the executables in it.
type Directory struct {
	Path      string `json:"path"` // with its trailing slash
	Recursive bool   `json:"recursive,omitempty"`
}

// Syscalls answers, for a system call's name, whether this kernel has it and whether it takes a path.
type Syscalls func(name string) (known, path bool)

// syscalls leaves a rule with the calls that it can fire for, and reports those that it cannot. It answers false
// when none is left.
func (c *compiler) syscalls(p *policies.Policy, r *policies.Rule) bool {
	r.Action = policies.ActionAudit
	lookup := c.in.Capabilities.Syscalls
	if lookup == nil {
		return true
	}
	var kept, unknown, pathless []string
	for _, name := range r.Object.Syscalls {
		known, path := lookup(name)
		switch {
		case !known:
			unknown = append(unknown, name)
		case r.Object.Value != "" && !path:
			pathless = append(pathless, name)
		default:
			kept = append(kept, name)
		}
	}
	if len(unknown) > 0 {
		c.gap(p, r.Index, ReasonSyscalls, "this kernel has no system call %s", strings.Join(unknown, ", "))
	}
	if len(pathless) > 0 {
		c.gap(p, r.Index, ReasonSyscalls, "%s takes no path: it is never made on %s", strings.Join(pathless, ", "), r.Object.Value)
	}
	r.Object.Syscalls = kept
	return len(kept) > 0
}

// directories are the sources that stand for what is in them, as written and resolved.
func (c *compiler) directories(list []policies.Source) []Directory {
	var found []Directory
	add := func(path string, recursive bool) {
		if path == "" {
			return
		}
		d := Directory{Path: strings.TrimSuffix(path, "/") + "/", Recursive: recursive}
		if !slices.Contains(found, d) {
			found = append(found, d)
		}
	}
	for _, s := range list {
		if s.Dir != "" {
			add(s.Dir, s.Recursive)
			add(c.in.Aliases[s.Dir], s.Recursive)
		}
	}
	return found
}

// matchSyscall says whether an operation of class syscalls is one that the rule names, on an object that it names.
func matchSyscall(r *Rule, op *Operation) (spelling string, ok bool) {
	o := r.Rule.Object
	if !slices.ContainsFunc(op.Names, func(name string) bool { return slices.Contains(o.Syscalls, name) }) {
		return "", false
	}
	if o.Value == "" {
		return strings.Join(op.Names, ","), true
	}
	for _, spelling := range r.Objects {
		if op.Path != "" && matchPath(syscallPath(o), spelling, op.Path) {
			return spelling, true
		}
	}
	return "", false
}

// syscallPath is the path of a syscall rule as the object that it is: a directory when it ends in a slash.
func syscallPath(o policies.Object) policies.Object {
	o.Kind = policies.ObjectPath
	if strings.HasSuffix(o.Value, "/") {
		o.Kind = policies.ObjectDirectory
	}
	return o
}

// within says whether the executable or a script lies in one of the rule's source directories.
func (s *ProcessSource) within(list []Directory) (string, bool) {
	for _, d := range list {
		for _, path := range s.Names() {
			if inDirectory(d.Path, d.Recursive, path) {
				return d.Path, true
			}
		}
	}
	return "", false
}

// CallGroup are system calls that the same rules name.
type CallGroup struct {
	Calls []string
	// Any are the rules that hold whatever the path, and when there is none.
	Any []int
	// Paths are the matchers of the others; their Index is the rule's number.
	Paths []automaton.Matcher
}

// CallGroups are the system calls that any rule names, each in one group.
func (rs *Ruleset) CallGroups() []CallGroup {
	rules := map[string][]int{}
	var calls []string
	for i := range rs.Rules {
		if rs.Rules[i].Rule.Class != policies.ClassSyscalls {
			continue
		}
		for _, name := range rs.Rules[i].Rule.Object.Syscalls {
			list := rules[name]
			if list == nil {
				calls = append(calls, name)
			}
			if len(list) == 0 || list[len(list)-1] != i {
				rules[name] = append(list, i)
			}
		}
	}
	slices.Sort(calls)
	var groups []CallGroup
	known := map[string]int{}
	for _, name := range calls {
		key := fmt.Sprint(rules[name])
		at, ok := known[key]
		if !ok {
			at = len(groups)
			known[key] = at
			groups = append(groups, rs.callGroup(rules[name]))
		}
		groups[at].Calls = append(groups[at].Calls, name)
	}
	return groups
}

func (rs *Ruleset) callGroup(rules []int) CallGroup {
	var g CallGroup
	for _, n := range rules {
		r := &rs.Rules[n]
		if r.Rule.Object.Value == "" {
			g.Any = append(g.Any, n)
			continue
		}
		for _, spelling := range r.Objects {
			g.Paths = append(g.Paths, automaton.Matcher{
				Index: n, Kind: matcherKind(syscallPath(r.Rule.Object).Kind), Text: spelling, Recursive: r.Rule.Object.Recursive,
			})
		}
	}
	return g
}

// Directories are all source directories of the ruleset, sorted.
func (rs *Ruleset) Directories() []Directory {
	var list []Directory
	for i := range rs.Rules {
		list = append(list, rs.Rules[i].Directories...)
	}
	slices.SortFunc(list, func(a, b Directory) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), compareBool(a.Recursive, b.Recursive))
	})
	return slices.Compact(list)
}

// RowWithin resolves a set of rules like Row, for a source that is known by nothing but these directories.
func (rows *Rows) RowWithin(set []int, directories []Directory) Row {
	var within []int
	for _, n := range set {
		if slices.ContainsFunc(rows.rs.Rules[n].Directories, func(d Directory) bool { return slices.Contains(directories, d) }) {
			within = append(within, n)
		}
	}
	var row Row
	for i := range row {
		row[i].Rule = -1
		for _, n := range within {
			rows.addAt(&row[i], i, &rows.rs.Rules[n], n)
		}
	}
	return row
}
