// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/control"
)

// Describe puts a plan into words: its steps, and the rules that the rulesets after have and those before
// had not, or the other way round.
func Describe(plan Plan, before, after []*enforce.Ruleset, gaps []enforce.Gap) *control.Plan {
	out := &control.Plan{Steps: []control.PlanStep{}, Changes: changes(before, after), Drift: []enforce.Drift{}, Gaps: append([]enforce.Gap{}, gaps...)}
	for _, step := range plan.Steps {
		out.Steps = append(out.Steps, describeStep(step))
	}
	return out
}

func describeStep(step enforce.Step) control.PlanStep {
	out := control.PlanStep{Text: step.String()}
	switch s := step.(type) {
	case enforce.StepAttach:
		out.Kind = "attach"
	case enforce.StepPublish:
		out.Kind, out.Subject = "publish", s.Ruleset.Subject
	case enforce.StepWithdraw:
		out.Kind, out.Subject = "withdraw", s.Subject
	case enforce.StepDetach:
		out.Kind = "detach"
	}
	return out
}

// changes lists removed and added rules.
func changes(before, after []*enforce.Ruleset) []control.RuleChange {
	type key struct {
		subject enforce.SubjectID
		rule    string
	}
	count := map[key]int{}
	lines := map[key]control.RuleChange{}
	note := func(rulesets []*enforce.Ruleset, by int) {
		for _, rs := range rulesets {
			for i := range rs.Rules {
				k := key{rs.Subject, ruleKey(&rs.Rules[i])}
				count[k] += by
				lines[k] = control.RuleChange{Subject: rs.Subject, Policy: PolicyName(rs.Rules[i].Policy), Rule: RuleText(rs.Rules[i].Rule)}
			}
		}
	}
	note(before, -1)
	note(after, +1)
	out := []control.RuleChange{}
	for k, n := range count {
		line := lines[k]
		line.Op = "+"
		if n < 0 {
			line.Op, n = "-", -n
		}
		for range n {
			out = append(out, line)
		}
	}
	slices.SortFunc(out, func(a, b control.RuleChange) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Op, b.Op))
	})
	return out
}

// PolicyName is a policy as people write it: its namespace only where it has one.
func PolicyName(id policies.ID) string {
	if id.Namespace == "" {
		return id.Name
	}
	return id.Namespace + "/" + id.Name
}

// RuleText is a rule in one line.
func RuleText(r policies.Rule) string {
	parts := []string{string(r.Action), string(r.Class), r.Object.Value}
	if r.Object.Kind != policies.ObjectPath {
		parts[2] = fmt.Sprintf("%s %s", r.Object.Kind, r.Object.Value)
	}
	for _, flag := range []struct {
		on   bool
		text string
	}{{r.Object.Recursive, "recursive"}, {r.OwnerOnly, "ownerOnly"}, {r.ReadOnly, "readOnly"}, {r.NoTerminal, "pts:false"}} {
		if flag.on {
			parts = append(parts, flag.text)
		}
	}
	sources := []string{}
	for _, s := range r.Sources {
		sources = append(sources, cmp.Or(s.Path, s.Dir))
	}
	if len(sources) > 0 {
		parts = append(parts, "from "+strings.Join(sources, ","))
	}
	return strings.Join(parts, " ")
}
