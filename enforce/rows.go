// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"slices"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// SourceClass is the number of a source path among Ruleset.Sources.
type SourceClass int32

// NoSource is the class of whatever no rule names as a source.
const NoSource SourceClass = -1

// The bits of an index into a Row. Class process has no reading: its second bit says that the file is mapped
// executable, not run.
const (
	RowOwner    = 1 << 0
	RowRead     = 1 << 1
	RowMapped   = 1 << 1
	RowTerminal = 1 << 2
)

// RowIndex is the operation's place in a Row.
func (op *Operation) RowIndex() int {
	index := 0
	if op.Owner {
		index |= RowOwner
	}
	if op.Class == policies.ClassProcess && op.Mapped || op.Class != policies.ClassProcess && op.Read {
		index |= RowRead
	}
	if op.Terminal {
		index |= RowTerminal
	}
	return index
}

// atIndex is an operation of the class with the attributes of a Row's index.
func atIndex(class policies.Class, index int) Operation {
	second := index&RowRead != 0
	return Operation{
		Owner: index&RowOwner != 0, Terminal: index&RowTerminal != 0,
		Read: class != policies.ClassProcess && second, Mapped: class == policies.ClassProcess && second,
	}
}

// Row is the outcome for one set of matching rules and one source, for every attribute of the operation.
type Row [8]Entry

// Entry is what the firing rules of one set and source say together.
//
// An operation has several entries: for the set of its name in each automaton and of each of its marks,
// and in each of these for its executable and its script, by name and by mark. The greatest Priority
// decides, and at equal Priority the smallest Rule. When none has a Priority, AllowList and the posture do.
type Entry struct {
	// Priority is 0 when no Allow or Block rule fires. Deny has the greater priority at equal rank.
	Priority uint32
	Verdict  Verdict
	// Rule is the deciding rule's number, -1 when none.
	Rule int
	// Audits are the Audit rules that fire, one for each policy, ascending.
	Audits []int
	// Dry are rules of policies in dry run that fire and that no rule of this entry outranks: of each policy the one
	// that would decide, ascending. Ruleset.DryRuns says what they come to.
	Dry []int
	// Conditional are the rules that fire for some arguments only, ascending; each that does takes part as if
	// it were an entry of its own.
	Conditional []Conditional
}

// Conditional is a rule with allowedArgs. An Allow fires when every argument is listed, a Block or an Audit
// when some argument is not.
type Conditional struct {
	Priority uint32 // 0 for an Audit rule
	Verdict  Verdict
	DryRun   bool // it takes no part in the verdict
	Rule     int
	Args     []string
}

// Fires says whether the rule does for these arguments after argv[0].
func (c *Conditional) Fires(args []string) bool {
	allows := c.Priority != 0 && c.Verdict == Permit
	return allListed(c.Args, args) == allows
}

// Rows resolves sets of matching rules, as the automata of one class report them, into rows.
type Rows struct {
	rs         *Ruleset
	sources    []string
	priorities []uint32
	lists      map[listKey]bool
	dryLists   map[listKey][]int
}

// Sources are all source paths of the ruleset, sorted; their indexes are the source classes, the same for
// every class of operation, because a process is classified once.
func (rs *Ruleset) Sources() []string {
	var paths []string
	for i := range rs.Rules {
		paths = append(paths, rs.Rules[i].Sources...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// NewRows prepares the resolution of the ruleset's sets.
func NewRows(rs *Ruleset) *Rows {
	rows := &Rows{rs: rs, sources: rs.Sources(), priorities: make([]uint32, len(rs.Rules)), lists: map[listKey]bool{}, dryLists: map[listKey][]int{}}
	rows.allowLists()
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Action != policies.ActionAudit {
			rows.priorities[i] = priority(rankOf(r), r.verdict())
		}
	}
	return rows
}

// Row resolves a set of rules whose objects match (ascending rule numbers) for one source. With byMark the
// source is known by its inode only: "keeps its class for Block and gains none for Allow".
func (rows *Rows) Row(set []int, source SourceClass, byMark bool) Row {
	var row Row
	for i := range row {
		row[i].Rule = -1
	}
	for _, number := range set {
		r := &rows.rs.Rules[number]
		if !rows.holdsFor(r, source, byMark) {
			continue
		}
		for i := range row {
			rows.addAt(&row[i], i, r, number)
		}
	}
	for i := range row {
		rows.prune(&row[i])
	}
	return row
}

// addAt adds a rule to the entry of an index, if it fires there for any arguments, or for some.
func (rows *Rows) addAt(e *Entry, index int, r *Rule, number int) {
	op := atIndex(r.Rule.Class, index)
	if op.Mapped && !r.isForMapping() {
		return
	}
	listed := fires(&r.Rule, &op)
	op.Args = []string{unlisted(r.Rule.AllowedArgs)}
	switch other := fires(&r.Rule, &op); {
	case listed && other:
		rows.add(e, r, number)
	case listed != other:
		e.Conditional = append(e.Conditional, Conditional{
			Priority: rows.priorities[number], Verdict: r.verdict(), DryRun: r.DryRun, Rule: number, Args: r.Rule.AllowedArgs,
		})
	}
}

// unlisted is an argument that is not in the list: longer than each of them.
func unlisted(args []string) string { return strings.Join(args, "-") + "-" }

// holdsFor says whether the rule is for this source.
func (rows *Rows) holdsFor(r *Rule, source SourceClass, byMark bool) bool {
	if len(r.Sources) == 0 {
		return len(r.Directories) == 0
	}
	if source == NoSource || byMark && r.Rule.Action == policies.ActionAllow {
		return false
	}
	return slices.Contains(r.Sources, rows.sources[source])
}

// add lets one more firing rule, of a greater number than those before it, take part in an entry.
func (rows *Rows) add(e *Entry, r *Rule, number int) {
	switch {
	case r.DryRun:
		e.Dry = rows.rs.addDry(e.Dry, number)
		return
	case r.Rule.Action == policies.ActionAudit:
		if n := len(e.Audits); n == 0 || rows.rs.Rules[e.Audits[n-1]].Policy != r.Policy {
			e.Audits = append(e.Audits, number)
		}
		return
	}
	if p := rows.priorities[number]; p > e.Priority {
		e.Priority, e.Verdict, e.Rule = p, r.verdict(), number
	}
}

// MergeAudits unites the audit lists of several entries: one rule for each policy, ascending.
func (rs *Ruleset) MergeAudits(lists ...[]int) []int {
	merged := slices.Concat(lists...)
	slices.Sort(merged)
	return slices.CompactFunc(merged, func(a, b int) bool { return rs.Rules[a].Policy == rs.Rules[b].Policy })
}

// AllowList says whether an allow-list of the class holds for a source class: then the posture decides
// what no rule matches. It is the same whether the source is known by name or by mark.
func (rows *Rows) AllowList(class policies.Class, source SourceClass) bool {
	return rows.lists[listKey{class, NoSource}] || rows.lists[listKey{class, source}]
}

// allowLists works out all answers of AllowList at once; NoSource stands for every source.
func (rows *Rows) allowLists() {
	number := make(map[string]SourceClass, len(rows.sources))
	for i, path := range rows.sources {
		number[path] = SourceClass(i)
	}
	for i := range rows.rs.Rules {
		r := &rows.rs.Rules[i]
		if r.Rule.Action != policies.ActionAllow {
			continue
		}
		if rows.rs.Subject != Host || len(r.Sources) == 0 {
			rows.addList(listKey{r.Rule.Class, NoSource}, r, i)
		}
		for _, path := range r.Sources {
			rows.addList(listKey{r.Rule.Class, number[path]}, r, i)
		}
	}
}

// addList notes that a rule makes an allow-list. In dry run the first rule of each policy stands for it.
func (rows *Rows) addList(key listKey, r *Rule, number int) {
	if !r.DryRun {
		rows.lists[key] = true
		return
	}
	list := rows.dryLists[key]
	if n := len(list); n == 0 || rows.rs.Rules[list[n-1]].Policy != r.Policy {
		rows.dryLists[key] = append(list, number)
	}
}

// listKey names an allow-list: of a class, for a source.
type listKey struct {
	class  policies.Class
	source SourceClass
}

// Restricts says whether the class has a Block or an Allow rule: what has no buildable path is then denied.
func (rs *Ruleset) Restricts(class policies.Class) bool { return rs.restricts(class, nil) }

// Reports says whether the class has an Audit rule.
func (rs *Ruleset) Reports(class policies.Class) bool {
	return slices.ContainsFunc(rs.Rules, func(r Rule) bool { return r.Rule.Class == class && r.Rule.Action == policies.ActionAudit })
}

// BlocksMapping says whether some rule can deny an executable mapping, or reports what it would deny.
func (rs *Ruleset) BlocksMapping() bool {
	return slices.ContainsFunc(rs.Rules, func(r Rule) bool {
		return r.Rule.Class == policies.ClassProcess && r.Rule.Action == policies.ActionBlock && r.isForMapping()
	})
}
