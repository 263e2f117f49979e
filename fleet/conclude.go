// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"slices"
	"time"

	"github.com/muster-fleet/muster/enforce"
)

// Declared is what one subject should obey, as the reconciler compiled it.
type Declared struct {
	Subject enforce.SubjectID
	Digest  string
	Rules   int
	// Mode is the ruleset's own mode; Held is why it is audit although it should enforce.
	Mode enforce.Mode
	Held string
}

// Facts is everything a conclusion is drawn from. The zero value concludes Unknown.
type Facts struct {
	// Released is true when a verified release is in force.
	Released bool
	Declared []Declared
	// Observed is what the kernel was read to hold after the last step; nil when it could not be read.
	Observed *enforce.State
	Drift    []enforce.Drift
	Gaps     []enforce.Gap
	// Conditions are what the loop and the verification of releases found (Refused, Stale, Suspended, …).
	Conditions []Condition
	// Stalled says why nothing more happens without a person; empty while the loop makes progress or retries.
	Stalled string
}

// Conclude completes base, which carries identity, releases, counters and inventory, with the one state and
// the conditions that the facts allow. It never says Enforced unless every declared digest was read back
// from the kernel. The lists of the facts become the report's: nobody changes them afterwards.
func Conclude(base Report, f Facts) Report {
	r := base
	r.Schema = ReportSchema
	r.Drift = sortedDrift(f.Drift)
	r.Gaps = slices.Clip(f.Gaps)
	r.Conditions = mergeConditions(base.Conditions, f.Conditions)
	r.Subjects = compareSubjects(f)
	r.State = concludeState(r, f)
	// Where there is nothing to list it is an empty list, as in the report that is sent.
	r.LSMs, r.Releases, r.Events = listed(r.LSMs), listed(r.Releases), listed(r.Events)
	r.Conditions, r.Subjects, r.Drift, r.Gaps = listed(r.Conditions), listed(r.Subjects), listed(r.Drift), listed(r.Gaps)
	return r
}

func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// concludeState goes from "we cannot say" to "all is well"; the first that holds is the state.
func concludeState(r Report, f Facts) HostState {
	switch {
	case f.Stalled != "":
		return StateStalled
	case !f.Released, f.Observed == nil, r.Mode == enforce.ModeOff:
		// Off looks at nothing, so nothing can be said.
		return StateUnknown
	case anyHeld(f.Declared):
		return StateHeld
	case drifts(r.Drift) || !allObserved(f):
		return StateDrifted
	case len(f.Gaps) > 0:
		return StatePartial
	case r.Mode == enforce.ModeAudit || anyAudit(f.Declared):
		return StateAudited
	case r.Mode == enforce.ModeEnforce:
		return StateEnforced
	}
	return StateUnknown
}

func anyHeld(ds []Declared) bool {
	return slices.ContainsFunc(ds, func(d Declared) bool { return d.Held != "" })
}

func anyAudit(ds []Declared) bool {
	return slices.ContainsFunc(ds, func(d Declared) bool { return d.Mode != enforce.ModeEnforce })
}

// drifts tells whether the kernel differs from what is declared. Gaps and held rulesets have states of their
// own, a mode that a policy's author chose is no damage, and what is foreign is not ours to judge.
func drifts(list []enforce.Drift) bool {
	return slices.ContainsFunc(list, func(d enforce.Drift) bool {
		return d.Repairable() || d.Kind == enforce.DriftUnlabelled
	})
}

// allObserved tells whether the kernel holds exactly the declared rulesets, intact and in their mode.
func allObserved(f Facts) bool {
	for _, d := range f.Declared {
		s, ok := f.Observed.Subjects[d.Subject]
		if !ok || !s.Intact || s.Digest != d.Digest || s.Mode != d.Mode {
			return false
		}
	}
	return !slices.ContainsFunc(f.Observed.Components, func(c enforce.Component) bool { return c.Condition != "" })
}

// compareSubjects lists declared against observed for every subject that has either.
func compareSubjects(f Facts) []ReportSubject {
	seen := make(map[enforce.SubjectID]bool, len(f.Declared))
	list := make([]ReportSubject, 0, len(f.Declared))
	for _, d := range f.Declared {
		seen[d.Subject] = true
		s := ReportSubject{Subject: d.Subject, Declared: d.Digest, Rules: d.Rules, Held: d.Held}
		if f.Observed != nil {
			s.Observed = f.Observed.Subjects[d.Subject].Digest
		}
		list = append(list, s)
	}
	if f.Observed != nil {
		for id, s := range f.Observed.Subjects {
			if !seen[id] {
				list = append(list, ReportSubject{Subject: id, Observed: s.Digest})
			}
		}
	}
	slices.SortFunc(list, func(a, b ReportSubject) int { return cmp.Compare(a.Subject, b.Subject) })
	return list
}

// sortedDrift puts the severe first, so that truncation takes the least. What is in order already is not copied: of
// thousands of gaps there are several reports a round.
func sortedDrift(list []enforce.Drift) []enforce.Drift {
	rank := map[string]int{"high": 0, "medium": 1, "low": 2}
	place := func(d enforce.Drift) int {
		if n, ok := rank[d.Severity]; ok {
			return n
		}
		return len(rank)
	}
	order := func(a, b enforce.Drift) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Kind, b.Kind))
	}
	if slices.IsSortedFunc(list, order) {
		return slices.Clip(list)
	}
	return slices.SortedStableFunc(slices.Values(list), order)
}

// mergeConditions joins the lists, one entry for each type, tenant and digest; the oldest Since is kept, the newest
// words win.
func mergeConditions(lists ...[]Condition) []Condition {
	type key struct{ kind, tenant, digest string }
	at := map[key]int{}
	out := []Condition{}
	for _, list := range lists {
		for _, c := range list {
			k := key{c.Type, c.Tenant, c.Digest}
			i, ok := at[k]
			if !ok {
				at[k] = len(out)
				out = append(out, c)
				continue
			}
			c.Since = earlier(out[i].Since, c.Since)
			out[i] = c
		}
	}
	slices.SortStableFunc(out, func(a, b Condition) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
