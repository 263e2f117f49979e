// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"errors"
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// ErrRowArgs says that a ruleset has allowedArgs, whose outcome depends on more than a row's attributes.
var ErrRowArgs = errors.New("allowedArgs cannot be resolved into rows")

// SourceClass is the number of a source path among Ruleset.Sources.
type SourceClass int32

// NoSource is the class of whatever no rule names as a source.
const NoSource SourceClass = -1

// The bits of an index into a Row.
const (
	RowOwner    = 1 << 0
	RowRead     = 1 << 1
	RowTerminal = 1 << 2
)

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
	// Audits are the reporting rules that fire, one for each policy, ascending.
	Audits []int
}

// Rows resolves sets of matching rules, as the automata of one class report them, into rows.
type Rows struct {
	rs         *Ruleset
	sources    []string
	priorities []uint32
	lists      map[listKey]bool
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
func NewRows(rs *Ruleset) (*Rows, error) {
	rows := &Rows{rs: rs, sources: rs.Sources(), priorities: make([]uint32, len(rs.Rules)), lists: map[listKey]bool{}}
	rows.allowLists()
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.HasArgs {
			return nil, ErrRowArgs
		}
		if r.decides() {
			rows.priorities[i] = priority(rankOf(r), r.verdict())
		}
	}
	return rows, nil
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
			op := Operation{Owner: i&RowOwner != 0, Read: i&RowRead != 0, Terminal: i&RowTerminal != 0}
			if fires(&r.Rule, &op) {
				rows.add(&row[i], r, number)
			}
		}
	}
	return row
}

// holdsFor says whether the rule is for this source.
func (rows *Rows) holdsFor(r *Rule, source SourceClass, byMark bool) bool {
	if len(r.Sources) == 0 {
		return true
	}
	if source == NoSource || byMark && r.Rule.Action == policies.ActionAllow {
		return false
	}
	return slices.Contains(r.Sources, rows.sources[source])
}

// add lets one more firing rule, of a greater number than those before it, take part in an entry.
func (rows *Rows) add(e *Entry, r *Rule, number int) {
	if r.reports() {
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
			rows.lists[listKey{r.Rule.Class, NoSource}] = true
		}
		for _, path := range r.Sources {
			rows.lists[listKey{r.Rule.Class, number[path]}] = true
		}
	}
}

// listKey names an allow-list: of a class, for a source.
type listKey struct {
	class  policies.Class
	source SourceClass
}

// Restricts says whether the class has a Block or an Allow rule: what has no buildable path is then denied.
func (rs *Ruleset) Restricts(class policies.Class) bool { return rs.restricts(class) }
