// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// DryRun says that a policy in dry run would have denied what is permitted: alone, with everything else as it is.
type DryRun struct {
	// Rule is the Block that would have decided. With Posture it is the policy's first rule that makes the
	// allow-list, with Unbuildable its first Allow or Block of the class.
	Rule        int  `json:"rule"`
	Posture     bool `json:"posture,omitempty"`
	Unbuildable bool `json:"unbuildable,omitempty"`
}

// dryRuns decides once more for each policy in dry run, as if that one were enforced. Only what is permitted is asked
// about: so the policy's rules or its allow-list are what makes the difference.
func (rs *Ruleset) dryRuns(op *Operation) []DryRun {
	var runs []DryRun
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if !r.DryRun || i > 0 && rs.Rules[i-1].DryRun && rs.Rules[i-1].Policy == r.Policy {
			continue
		}
		d := rs.decideAs(op, &r.Policy)
		if d.Verdict != Deny {
			continue
		}
		run := DryRun{Rule: d.Rule, Posture: d.Posture, Unbuildable: d.Unbuildable}
		if d.Rule < 0 {
			run.Rule = rs.firstOf(&r.Policy, func(r *Rule) bool {
				return d.Posture && rs.makesList(r, op.Class, &op.Source) || d.Unbuildable && r.Rule.Class == op.Class
			})
		}
		if n := len(runs); n == 0 || runs[n-1] != run {
			runs = append(runs, run)
		}
	}
	return runs
}

// firstOf is the number of the policy's first rule in dry run that is as asked.
func (rs *Ruleset) firstOf(id *policies.ID, is func(*Rule) bool) int {
	for i := range rs.Rules {
		if r := &rs.Rules[i]; r.DryRun && r.Policy == *id && is(r) {
			return i
		}
	}
	return -1
}

// addDry adds a rule that fires to the list of those that would decide, ascending and one for each policy.
func (rs *Ruleset) addDry(list []int, number int) []int {
	n := len(list)
	if n == 0 || rs.Rules[list[n-1]].Policy != rs.Rules[number].Policy {
		return append(list, number)
	}
	if rs.DryPriority(number) > rs.DryPriority(list[n-1]) {
		list[n-1] = number
	}
	return list
}

// DryPriority is the priority that a rule would have if its policy were enforced.
func (rs *Ruleset) DryPriority(number int) uint32 {
	r := &rs.Rules[number]
	return priority(rankOf(r), r.verdict())
}

// prune takes away the rules of policies in dry run that a rule of the entry outranks, whoever is enforced.
func (rows *Rows) prune(e *Entry) {
	kept := e.Dry[:0]
	for _, number := range e.Dry {
		if rows.priorities[number] > e.Priority {
			kept = append(kept, number)
		}
	}
	e.Dry = kept
}

// DryLists are the policies in dry run with an allow-list of the class for a source that would deny what no rule
// matches: of each its first rule that makes the list, ascending.
func (rows *Rows) DryLists(class policies.Class, source SourceClass) []int {
	if rows.rs.Postures.Of(class) != PostureBlock {
		return nil
	}
	lists := rows.dryLists[listKey{class, NoSource}]
	if source != NoSource {
		lists = rows.rs.MergeAudits(lists, rows.dryLists[listKey{class, source}])
	}
	return lists
}

// DryClosers are the policies in dry run with an Allow or a Block of the class, each by its first: enforced they would
// deny what has no buildable path.
func (rs *Ruleset) DryClosers(class policies.Class) []int {
	var first []int
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.DryRun && r.Rule.Class == class && (len(first) == 0 || rs.Rules[first[len(first)-1]].Policy != r.Policy) {
			first = append(first, i)
		}
	}
	return first
}

// DryRuns says who would have denied one object on which the rule decided, or none with -1: fired are the rules of
// policies in dry run that fire for it, lists those of their allow-lists that hold. It is what a kernel's findings
// come to.
func (rs *Ruleset) DryRuns(decided int, fired, lists []int) []DryRun {
	var limit uint32
	if decided >= 0 {
		limit = rs.DryPriority(decided)
	}
	best := map[policies.ID]int{}
	for _, number := range fired {
		id := rs.Rules[number].Policy
		old, there := best[id]
		if better := rs.DryPriority(number); !there || better > rs.DryPriority(old) || better == rs.DryPriority(old) && number < old {
			best[id] = number
		}
	}
	var runs []DryRun
	for _, number := range best {
		if rs.DryPriority(number) > limit && rs.Rules[number].verdict() == Deny {
			runs = append(runs, DryRun{Rule: number})
		}
	}
	for _, number := range rs.MergeAudits(lists) {
		if _, there := best[rs.Rules[number].Policy]; !there && decided < 0 {
			runs = append(runs, DryRun{Rule: number, Posture: true})
		}
	}
	return rs.MergeDryRuns(runs)
}

// MergeDryRuns unites those of several objects of one operation: of each policy the first, in the order of the rules.
func (rs *Ruleset) MergeDryRuns(objects ...[]DryRun) []DryRun {
	var merged []DryRun
	for _, run := range slices.Concat(objects...) {
		same := func(other DryRun) bool { return rs.Rules[other.Rule].Policy == rs.Rules[run.Rule].Policy }
		if !slices.ContainsFunc(merged, same) {
			merged = append(merged, run)
		}
	}
	slices.SortFunc(merged, func(a, b DryRun) int { return cmp.Compare(a.Rule, b.Rule) })
	return merged
}

// ListMakers are the Allow rules that make the allow-list of a class for a source, of each policy the first; those of the
// class when its names do not tell.
func (rs *Ruleset) ListMakers(class policies.Class, source *ProcessSource) []int {
	var makers, others []int
	for i := range rs.Rules {
		r := &rs.Rules[i]
		switch {
		case r.Rule.Class != class || r.Rule.Action != policies.ActionAllow || r.DryRun:
		case rs.makesList(r, class, source):
			makers = append(makers, i)
		default:
			others = append(others, i)
		}
	}
	if len(makers) == 0 {
		makers = others
	}
	return rs.MergeAudits(makers)
}

// AuditedPolicy is a policy that denies nothing yet.
type AuditedPolicy struct {
	Policy  policies.ID
	Version string
	// Mode is the ruleset's: ModeAudit when nothing is enforced at all.
	Mode Mode
}

// Audited are the policies of the ruleset that are in audit by themselves or with everything, in its order.
func (rs *Ruleset) Audited() []AuditedPolicy {
	var list []AuditedPolicy
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if n := len(list); r.Version != "" && (n == 0 || list[n-1].Policy != r.Policy) {
			list = append(list, AuditedPolicy{Policy: r.Policy, Version: r.Version, Mode: rs.Mode})
		}
	}
	return list
}

// PolicyVersion names what a policy asks for, wherever it stands and whatever its mode: a soak of one version says nothing
// of another.
func PolicyVersion(p *policies.Policy) string {
	w := canonicalWriter{hash: sha256.New()}
	w.open('[')
	for _, r := range sortedRules(p.Rules) {
		rule := Rule{Policy: p.ID, Rule: r}
		for _, s := range r.Sources {
			rule.Sources = append(rule.Sources, s.Path)
			if s.Dir != "" {
				rule.Directories = append(rule.Directories, Directory{Path: s.Dir, Recursive: s.Recursive})
			}
		}
		w.rule(&rule)
	}
	w.close(']')
	w.flush(0)
	return hex.EncodeToString(w.hash.Sum(nil)[:8])
}
