// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"fmt"
	"slices"

	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// Matchers are the path matchers of one class, one for each spelling; their Index is the rule's number.
func (rs *Ruleset) Matchers(class policies.Class) []automaton.Matcher {
	var matchers []automaton.Matcher
	for i := range rs.Rules {
		r := &rs.Rules[i]
		kind := matcherKind(r.Rule.Object.Kind)
		if r.Rule.Class != class || kind == 0 {
			continue
		}
		for _, o := range r.Objects {
			matchers = append(matchers, automaton.Matcher{Index: i, Kind: kind, Text: o, Recursive: r.Rule.Object.Recursive})
		}
	}
	return matchers
}

func matcherKind(kind policies.ObjectKind) automaton.Kind {
	switch kind {
	case policies.ObjectPath:
		return automaton.Exact
	case policies.ObjectExecName:
		return automaton.ExecName
	case policies.ObjectPattern:
		return automaton.Pattern
	case policies.ObjectDirectory:
		return automaton.Directory
	default:
		return 0
	}
}

// excludeComplex takes out of the ruleset the rules that no automaton within its budget can hold, so that
// every backend is left with what it can build, and says so.
func excludeComplex(rs *Ruleset, backend string) []Gap {
	out := map[int]string{}
	for _, class := range [...]policies.Class{policies.ClassProcess, policies.ClassFile} {
		for _, e := range automaton.Excess(rs.Matchers(class), automaton.Options{}) {
			out[e.Index] = e.Reason
		}
	}
	if len(out) == 0 {
		return nil
	}
	var gaps []Gap
	kept := make([]Rule, 0, len(rs.Rules)-len(out))
	for i, r := range rs.Rules {
		reason, excluded := out[i]
		if !excluded {
			kept = append(kept, r)
			continue
		}
		gaps = append(gaps, Gap{
			Subject: rs.Subject, Policy: r.Policy, Rule: r.Rule.Index, Backend: backend,
			Reason: ReasonPatternComplexity, Detail: fmt.Sprintf("%s: %s", r.Rule.Object.Value, reason),
		})
	}
	rs.Rules = kept
	return gaps
}

// Marks are the paths whose files a backend marks for the class: every spelling of every exact-path Block,
// sorted.
func (rs *Ruleset) Marks(class policies.Class) []string {
	var paths []string
	for i := range rs.Rules {
		if r := &rs.Rules[i]; r.Rule.Class == class && protectsFile(r) {
			paths = append(paths, r.Objects...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// MarkSet are the numbers of the rules that a file marked as path falls under, whatever its name now:
// ascending, and to be used like a set of the automaton.
func (rs *Ruleset) MarkSet(class policies.Class, path string) []int {
	var set []int
	for i := range rs.Rules {
		if r := &rs.Rules[i]; r.Rule.Class == class && protectsFile(r) && slices.Contains(r.Objects, path) {
			set = append(set, i)
		}
	}
	return set
}
