// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// Matchers are the path matchers of one class, one for each spelling; their Index is the rule's number. A domain
// is matched as a directory: see DomainPath.
func (rs *Ruleset) Matchers(class policies.Class) []automaton.Matcher {
	var matchers []automaton.Matcher
	for i := range rs.Rules {
		r := &rs.Rules[i]
		kind := matcherKind(r.Rule.Object.Kind)
		if r.Rule.Class != class || kind == 0 {
			continue
		}
		if kind == automaton.Pattern && r.Rule.Object.Kind == policies.ObjectFlow {
			matchers = append(matchers, flowMatchers(i, r)...)
			continue
		}
		for _, o := range r.Objects {
			m := automaton.Matcher{Index: i, Kind: kind, Text: o, Recursive: r.Rule.Object.Recursive}
			if r.Rule.Object.Kind == policies.ObjectDomain {
				m.Text, m.Recursive = DomainPath(o)+"/", true
			}
			matchers = append(matchers, m)
		}
	}
	return matchers
}

// NameSets says, for every name that a rule of a class without paths speaks of (a protocol, a capability), the
// numbers of these rules, ascending: to be used like a set of the automaton.
func (rs *Ruleset) NameSets(class policies.Class) map[string][]int {
	sets := map[string][]int{}
	for i := range rs.Rules {
		switch o := rs.Rules[i].Rule.Object; o.Kind {
		case policies.ObjectProtocol, policies.ObjectCapability, policies.ObjectPreset:
			if rs.Rules[i].Rule.Class == class {
				sets[o.Value] = append(sets[o.Value], i)
			}
		}
	}
	return sets
}

// DomainPath writes a domain name as a path, from its end and in lower case: www.Example is /example/www. A
// name with its subdomains is then a directory with all of its descendants.
func DomainPath(name string) string {
	labels := strings.Split(strings.ToLower(strings.Trim(name, ".")), ".")
	slices.Reverse(labels)
	return "/" + strings.Join(labels, "/")
}

func matcherKind(kind policies.ObjectKind) automaton.Kind {
	switch kind {
	case policies.ObjectPath:
		return automaton.Exact
	case policies.ObjectExecName:
		return automaton.ExecName
	case policies.ObjectPattern, policies.ObjectFlow:
		return automaton.Pattern
	case policies.ObjectDirectory, policies.ObjectDomain:
		return automaton.Directory
	default:
		return 0
	}
}

// excludeComplex takes out of the ruleset the rules that no automaton within its budget can hold, so that
// every backend is left with what it can build, and says so.
func excludeComplex(rs *Ruleset, backend string) []Gap {
	out := map[int]string{}
	for _, class := range [...]policies.Class{
		policies.ClassProcess, policies.ClassFile, policies.ClassDNS, policies.ClassIngress, policies.ClassEgress,
	} {
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

// MarkSets says, for every path whose file a backend marks for the class (each spelling of each exact-path
// Block), the numbers of the rules that the file falls under, whatever its name now: ascending, and to be
// used like a set of the automaton.
func (rs *Ruleset) MarkSets(class policies.Class) map[string][]int {
	sets := map[string][]int{}
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Class != class || !protectsFile(r) {
			continue
		}
		for _, path := range r.Objects {
			if set := sets[path]; len(set) == 0 || set[len(set)-1] != i {
				sets[path] = append(set, i)
			}
		}
	}
	return sets
}

// Marks are the paths of MarkSets, sorted.
func (rs *Ruleset) Marks(class policies.Class) []string {
	return slices.Sorted(maps.Keys(rs.MarkSets(class)))
}
