// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce"
)

// Plan is what has to be done to the kernel, in order. It is data: nothing happens by having one.
type Plan struct {
	Steps []enforce.Step
}

// Empty is true when the kernel already is as it should be.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String lists the steps, one a line.
func (p Plan) String() string {
	lines := make([]string, 0, len(p.Steps))
	for i, step := range p.Steps {
		lines = append(lines, fmt.Sprintf("%d. %s", i+1, step))
	}
	return strings.Join(lines, "\n")
}

// Want is what the host should obey.
type Want struct {
	// Known is true only when the rulesets come from a complete verified release: without one nothing that
	// the kernel holds is ever removed.
	Known    bool
	Rulesets []*enforce.Ruleset
	// Off asks for no ruleset at all.
	Off bool
	// Adopt asks the backend to take hold of what another process attached, even when all of it is well.
	Adopt bool
}

// adoptReason is the reason of a StepAttach that only takes hold of what is there.
const adoptReason = "this agent takes over what is pinned"

// adoption is the part of the plan that changes nothing about what is enforced, and is therefore always allowed.
func (p Plan) adoption() Plan {
	if len(p.Steps) > 0 && p.Steps[0] == (enforce.StepAttach{Reason: adoptReason}) {
		return Plan{Steps: p.Steps[:1]}
	}
	return Plan{}
}

// NewPlan returns the steps from have to want: first the programs, then what is to be enforced, and last
// what is not any more. A subject without rules, of which nothing is visible either, needs nothing when the kernel
// does not know it.
func NewPlan(want Want, have enforce.State) Plan {
	var plan Plan
	if reason := attachReason(want, have); reason != "" {
		plan.Steps = append(plan.Steps, enforce.StepAttach{Reason: reason})
	}
	if !want.Known && !want.Off {
		return plan
	}
	wanted := map[enforce.SubjectID]bool{}
	if !want.Off {
		rulesets := slices.SortedFunc(slices.Values(want.Rulesets), func(a, b *enforce.Ruleset) int { return cmp.Compare(a.Subject, b.Subject) })
		for _, rs := range rulesets {
			wanted[rs.Subject] = true
			if !holds(rs, have) {
				plan.Steps = append(plan.Steps, enforce.StepPublish{Ruleset: rs})
			}
		}
	}
	for _, subject := range slices.Sorted(subjects(have)) {
		if !wanted[subject] {
			plan.Steps = append(plan.Steps, enforce.StepWithdraw{Subject: subject})
		}
	}
	return plan
}

// attachReason says why the programs have to be attached, or "". Where nothing is to be enforced and nothing
// is in force they need not be there at all.
func attachReason(want Want, have enforce.State) string {
	reason := broken(have)
	if reason == "" && want.Adopt && len(have.Components) > 0 {
		reason = adoptReason
	}
	if len(have.Subjects) > 0 && (!want.Off || want.Adopt) {
		return reason
	}
	if want.Known && !want.Off {
		return reason
	}
	return ""
}

// holds is true when the kernel holds rs as it should be, or needs not to.
func holds(rs *enforce.Ruleset, have enforce.State) bool {
	state, there := have.Subjects[rs.Subject]
	if !there {
		return len(rs.Rules) == 0 && len(rs.Visible) == 0
	}
	return state.Digest == rs.Digest() && state.Intact && state.Mode == rs.Mode
}

// broken names the first component that is not as it should be.
func broken(have enforce.State) string {
	for _, c := range have.Components {
		if c.Condition != "" {
			reason := fmt.Sprintf("%s %s is %s", c.Kind, c.Name, c.Condition)
			if c.Detail != "" {
				reason += ": " + c.Detail
			}
			return reason
		}
	}
	return ""
}

func subjects(state enforce.State) func(yield func(enforce.SubjectID) bool) {
	return func(yield func(enforce.SubjectID) bool) {
		for id := range state.Subjects {
			if !yield(id) {
				return
			}
		}
	}
}

// Cause is why a round runs.
type Cause string

// The causes.
const (
	CauseStart   Cause = "start"
	CauseRelease Cause = "release"
	CauseDrift   Cause = "drift" // the interval at which the kernel is read back
	CauseChange  Cause = "change"
	CauseRetry   Cause = "retry"
)

// gate is everything that decides whether a plan is carried out.
type gate struct {
	mode      enforce.Mode
	suspended bool
	// changed is true when what is wanted is not what was last carried out: the rest is drift.
	changed bool
	blocked bool // a failure is too fresh
}

// open says whether to act: what is wanted anew is carried out in every mode; drift is corrected only by
// enforce.
func (g gate) open() bool {
	if g.suspended || g.blocked {
		return false
	}
	return g.changed || g.mode == enforce.ModeEnforce
}
