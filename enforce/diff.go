// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// The severities of drift.
const (
	SeverityHigh   = "high"   // something declared is not enforced
	SeverityMedium = "medium" // something is enforced that is not declared, or not everywhere
	SeverityLow    = "low"    // known, wanted or another's
)

// DiffInput is what Diff compares.
type DiffInput struct {
	Want []*Ruleset
	Have State
	Gaps []Gap
	// Before is the drift found last time: what is still there keeps its Since.
	Before []Drift
	Now    time.Time
}

// Diff compares what is declared with what a backend read from its kernel. The answer is sorted and, for
// the same input, always the same.
func Diff(in DiffInput) []Drift {
	d := differ{in: in, found: make([]Drift, 0, len(in.Gaps))}
	d.components()
	d.subjects()
	d.gaps()
	slices.SortStableFunc(d.found, compareDrift)
	d.keepSince()
	return d.found
}

// Repairable says whether publishing or attaching again can end the drift. Gaps, others' programs, a held
// ruleset and a mode that a policy's author chose are facts to report, not damage.
func (d Drift) Repairable() bool {
	switch d.Kind {
	case DriftMissing, DriftAltered, DriftExtra, DriftDetached:
		return true
	case DriftMode:
		return d.Policy == nil
	default:
		return false
	}
}

type differ struct {
	in    DiffInput
	found []Drift
}

func (d *differ) add(kind DriftKind, severity string, subject SubjectID, declared, observed string) *Drift {
	d.found = append(d.found, Drift{
		Kind: kind, Severity: severity, Subject: subject, Backend: d.in.Have.Backend,
		Declared: declared, Observed: observed, Since: d.in.Now,
	})
	return &d.found[len(d.found)-1]
}

// components turns links, programs, maps and pins that are not as they should be into drift. They belong to
// no subject: every subject depends on them.
func (d *differ) components() {
	for _, c := range d.in.Have.Components {
		if c.Condition == "" {
			continue
		}
		severity := SeverityHigh
		if c.Condition == DriftExtra {
			severity = SeverityMedium
		}
		declared := c.Kind + " " + c.Name
		if c.Condition == DriftExtra {
			declared = "nothing"
		}
		d.add(c.Condition, severity, "", declared, cmp.Or(c.Detail, fmt.Sprintf("%s %s is %s", c.Kind, c.Name, c.Condition)))
	}
	for _, f := range d.in.Have.Foreign {
		d.add(DriftForeign, SeverityLow, "", "nothing of ours", f)
	}
	if n := d.in.Have.Unlabelled; n > 0 {
		d.add(DriftUnlabelled, SeverityMedium, "", "every process classified", fmt.Sprintf("%d unclassified", n))
	}
}

// subjects compares the rulesets. A subject without rules needs no ruleset in the kernel.
func (d *differ) subjects() {
	wanted := map[SubjectID]bool{}
	for _, rs := range d.in.Want {
		have, ok := d.in.Have.Subjects[rs.Subject]
		if len(rs.Rules) == 0 && rs.Held == "" && !ok {
			continue
		}
		wanted[rs.Subject] = true
		if rs.Held != "" {
			d.add(DriftHeld, SeverityHigh, rs.Subject, string(ModeEnforce), rs.Held)
		}
		if !ok {
			d.add(DriftMissing, SeverityHigh, rs.Subject, rs.Digest(), "no ruleset")
			continue
		}
		d.subject(rs, have)
	}
	for subject, have := range d.in.Have.Subjects {
		if !wanted[subject] {
			d.add(DriftExtra, SeverityMedium, subject, "no ruleset", have.Digest)
		}
	}
}

func (d *differ) subject(rs *Ruleset, have SubjectState) {
	switch digest := rs.Digest(); {
	case have.Digest != digest:
		d.add(DriftAltered, SeverityHigh, rs.Subject, digest, cmp.Or(have.Digest, "no digest"))
	case !have.Intact:
		d.add(DriftAltered, SeverityHigh, rs.Subject, digest, cmp.Or(have.Detail, "contents differ from what the digest says"))
	}
	if have.Mode != rs.Mode {
		severity := SeverityMedium
		if rs.Mode == ModeEnforce {
			severity = SeverityHigh
		}
		d.add(DriftMode, severity, rs.Subject, string(rs.Mode), string(have.Mode))
	}
}

// gaps repeats each gap as drift; a weaker mode that the policy itself asks for is of kind mode.
func (d *differ) gaps() {
	for i := range d.in.Gaps {
		g := &d.in.Gaps[i]
		kind, severity := DriftGap, SeverityMedium
		if g.Reason == ReasonMode {
			kind, severity = DriftMode, SeverityLow
		}
		drift := d.add(kind, severity, g.Subject, g.Reason, g.Detail)
		drift.Backend = cmp.Or(g.Backend, drift.Backend)
		drift.Policy = &g.Policy
		if g.Rule >= 0 {
			drift.Rule = &g.Rule
		}
	}
}

// driftKey is a drift without its time.
type driftKey struct {
	Drift
	policy policies.ID
	rule   int
}

func keyOf(d Drift) driftKey {
	k := driftKey{Drift: d, policy: d.policy(), rule: d.rule()}
	k.Policy, k.Rule, k.Since = nil, nil, time.Time{}
	return k
}

// policy is the policy meant, or the empty one.
func (d Drift) policy() policies.ID {
	if d.Policy == nil {
		return policies.ID{}
	}
	return *d.Policy
}

// rule is the position of the rule meant, or -1.
func (d Drift) rule() int {
	if d.Rule == nil {
		return -1
	}
	return *d.Rule
}

func (d *differ) keepSince() {
	at := 0
	before := d.in.Before // sorted, by an earlier Diff
	for i := range d.found {
		for at < len(before) && compareDrift(before[at], d.found[i]) < 0 {
			at++
		}
		for same := at; same < len(before) && compareDrift(before[same], d.found[i]) == 0; same++ {
			if keyOf(before[same]) == keyOf(d.found[i]) {
				d.found[i].Since = before[same].Since
			}
		}
	}
}

// compareDrift orders by severity, then by what a reader looks for.
func compareDrift(a, b Drift) int {
	return cmp.Or(
		cmp.Compare(severityOrder(a.Severity), severityOrder(b.Severity)),
		cmp.Compare(a.Subject, b.Subject),
		cmp.Compare(a.Kind, b.Kind),
		compareIDs(a.policy(), b.policy()),
		cmp.Compare(a.rule(), b.rule()),
		cmp.Compare(a.Declared, b.Declared),
		cmp.Compare(a.Observed, b.Observed),
	)
}

func severityOrder(severity string) int {
	switch severity {
	case SeverityHigh:
		return 0
	case SeverityMedium:
		return 1
	default:
		return 2
	}
}
