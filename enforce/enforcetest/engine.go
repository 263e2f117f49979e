// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforcetest

import (
	"fmt"
	"slices"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// Engine decides as a kernel does: by automata, sets of marks and rows. It is the pattern for a backend's
// data path, and its equality with Ruleset.Decide is the proof that automata and rows lose nothing.
type Engine struct {
	rs       *enforce.Ruleset
	rows     *enforce.Rows
	classes  map[string]enforce.SourceClass
	automata map[policies.Class][]*automaton.DFA
	marks    map[policies.Class]map[string][]int
	names    map[policies.Class]map[string][]int
	groups   map[string]group // of system calls, by the call
}

// group are system calls that the same rules name, with the automata over their path.
type group struct {
	enforce.CallGroup
	automata []*automaton.DFA
}

// NewEngine compiles a ruleset.
func NewEngine(rs *enforce.Ruleset) (*Engine, error) {
	e := &Engine{
		rs: rs, rows: enforce.NewRows(rs),
		classes:  map[string]enforce.SourceClass{},
		automata: map[policies.Class][]*automaton.DFA{},
		marks:    map[policies.Class]map[string][]int{},
		names:    map[policies.Class]map[string][]int{},
		groups:   map[string]group{},
	}
	for _, g := range rs.CallGroups() {
		automata, excluded := automaton.Compile(g.Paths, automaton.Options{})
		if len(excluded) > 0 {
			return nil, fmt.Errorf("system calls: Compile left in %v", excluded)
		}
		for _, name := range g.Calls {
			e.groups[name] = group{g, automata}
		}
	}
	for i, path := range rs.Sources() {
		e.classes[path] = enforce.SourceClass(i)
	}
	for _, class := range classes {
		e.names[class] = rs.NameSets(class)
		automata, excluded := automaton.Compile(rs.Matchers(class), automaton.Options{})
		if len(excluded) > 0 {
			return nil, fmt.Errorf("class %s: Compile left in %v", class, excluded)
		}
		e.automata[class], e.marks[class] = automata, rs.MarkSets(class)
	}
	return e, nil
}

// identity is one way in which the acting process is known.
type identity struct {
	class  enforce.SourceClass
	byMark bool
}

// Decide is the decision as a backend makes it.
func (e *Engine) Decide(op enforce.Operation) enforce.Decision {
	identities := e.identities(&op.Source)
	best, audits, dry := e.best(&op, identities)
	d := enforce.Decision{Rule: best.Rule, Verdict: best.Verdict, Audits: e.rs.MergeAudits(audits...)}
	switch {
	case op.NoPath:
		d.Rule, d.Verdict = -1, enforce.Permit
		if e.rs.Restricts(op.Class) {
			d.Verdict, d.Unbuildable = enforce.Deny, true
		}
	case best.Priority == 0 && !op.Mapped && e.allowList(op.Class, identities):
		d.Posture = true
		if e.rs.Postures.Of(op.Class) == enforce.PostureBlock {
			d.Verdict = enforce.Deny
		} else {
			d.WouldDeny = true
		}
	}
	if d.Verdict == enforce.Permit {
		d.DryRuns = e.dryRuns(&op, best.Rule, dry, identities)
	}
	if e.rs.Mode == enforce.ModeAudit && d.Verdict == enforce.Deny {
		d.Verdict, d.WouldDeny = enforce.Permit, true
	}
	return d
}

// dryRuns is what the rules of policies in dry run, and their allow-lists, come to.
func (e *Engine) dryRuns(op *enforce.Operation, decided int, fired []int, identities []identity) []enforce.DryRun {
	var lists []int
	if op.NoPath {
		var runs []enforce.DryRun
		for _, rule := range e.rs.DryClosers(op.Class) {
			runs = append(runs, enforce.DryRun{Rule: rule, Unbuildable: true})
		}
		return runs
	}
	for _, id := range identities {
		if !op.Mapped {
			lists = append(lists, e.rows.DryLists(op.Class, id.class)...)
		}
	}
	return e.rs.DryRuns(decided, fired, lists)
}

// best is the entry that decides, and the audit lists and the dry rules of all.
func (e *Engine) best(op *enforce.Operation, identities []identity) (enforce.Entry, [][]int, []int) {
	best, audits, dry := enforce.Entry{Rule: -1}, [][]int(nil), []int(nil)
	within := e.within(&op.Source)
	for _, set := range e.sets(op) {
		if len(within) > 0 {
			audits = append(audits, e.rows.RowWithin(set, within)[0].Audits)
		}
		for _, id := range identities {
			for _, entry := range entries(e.rows.Row(set, id.class, id.byMark)[op.RowIndex()], op.Args) {
				audits, dry = append(audits, entry.Audits), append(dry, entry.Dry...)
				if entry.Priority > best.Priority || entry.Priority == best.Priority && entry.Priority > 0 && entry.Rule < best.Rule {
					best = entry
				}
			}
		}
	}
	return best, audits, dry
}

// within are the source directories that the executable or a script lies in.
func (e *Engine) within(source *enforce.ProcessSource) []enforce.Directory {
	list := e.rs.Directories()
	var matchers []automaton.Matcher
	for i, d := range list {
		matchers = append(matchers, automaton.Matcher{Index: i, Kind: automaton.Directory, Text: d.Path, Recursive: d.Recursive})
	}
	var found []enforce.Directory
	automata, _ := automaton.Compile(matchers, automaton.Options{})
	for _, dfa := range automata {
		for _, path := range source.Names() {
			for _, i := range dfa.Match(path) {
				found = append(found, list[i])
			}
		}
	}
	return found
}

// callSets are the sets of rules that a system call falls under.
func (e *Engine) callSets(op *enforce.Operation) [][]int {
	var sets [][]int
	for _, name := range op.Names {
		g := e.groups[name]
		sets = append(sets, g.Any)
		for _, dfa := range g.automata {
			if op.Path != "" {
				sets = append(sets, dfa.Match(op.Path))
			}
		}
	}
	return sets
}

// sets are the sets of rules that the object falls under: by its path or its names, and by each mark of its
// inode.
func (e *Engine) sets(op *enforce.Operation) [][]int {
	if op.Class == policies.ClassSyscalls {
		return e.callSets(op)
	}
	var sets [][]int
	path := op.Path
	if op.Flow != nil {
		path = op.Flow.Path()
	}
	for _, name := range op.Names {
		sets = append(sets, e.names[op.Class][name])
		if op.Class == policies.ClassDNS {
			path = enforce.DomainPath(name)
		}
	}
	if path != "" {
		for _, d := range e.automata[op.Class] {
			sets = append(sets, d.Match(path))
		}
	}
	for _, m := range op.Marks {
		sets = append(sets, e.marks[op.Class][m])
	}
	return sets
}

// identities are all the ways in which the process is known; it is at least nobody in particular.
func (e *Engine) identities(source *enforce.ProcessSource) []identity {
	list := []identity{{class: enforce.NoSource}}
	add := func(path string, byMark bool) {
		if class, ok := e.classes[path]; ok {
			list = append(list, identity{class, byMark})
		}
	}
	for _, name := range source.Names() {
		add(name, false)
	}
	for _, m := range source.Marks() {
		add(m, true)
	}
	return list
}

func (e *Engine) allowList(class policies.Class, identities []identity) bool {
	return slices.ContainsFunc(identities, func(id identity) bool { return e.rows.AllowList(class, id.class) })
}

// entries are an entry and those that its conditional rules make for these arguments.
func entries(e enforce.Entry, args []string) []enforce.Entry {
	list := []enforce.Entry{e}
	for _, c := range e.Conditional {
		switch {
		case !c.Fires(args):
		case c.Priority == 0:
			list = append(list, enforce.Entry{Rule: -1, Audits: []int{c.Rule}})
		case c.DryRun:
			list = append(list, enforce.Entry{Rule: -1, Dry: []int{c.Rule}})
		default:
			list = append(list, enforce.Entry{Priority: c.Priority, Verdict: c.Verdict, Rule: c.Rule})
		}
	}
	return list
}
