// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/control"
)

// The areas in which something can be wrong, each by itself.
const (
	areaSource = "source"
	areaState  = "state"
	areaKernel = "kernel"
	areaConfig = "config"
	areaReport = "report"
)

// release is a verified release with its policies parsed.
type release struct {
	verified *bundles.Verified
	set      *policies.Set
	// hosts is who may report for which host, nil when the release does not say.
	hosts   *fleet.AllowedSigners
	checked time.Time
}

// report is the release in the words of a report.
func (r *release) report() fleet.ReportRelease {
	doc := r.verified.Release()
	return fleet.ReportRelease{
		Level: string(r.verified.Level()), Name: doc.Name, Channel: doc.Channel, Epoch: doc.Epoch, Sequence: doc.Sequence,
		Digest: r.verified.Digest(), Revision: string(r.verified.Revision()), Signers: r.verified.Signers(),
	}
}

// refusal is the newest release that was refused.
type refusal struct {
	revision bundles.Revision
	digest   string
	err      error
	since    time.Time
}

// trouble is something that is wrong in one area.
type trouble struct {
	err   error
	since time.Time
}

// knowledge is what the loop has learned; only the loop's goroutine touches it.
type knowledge struct {
	seen bundles.Seen
	// enforced is in force; audited has enough signers for audit only and stands beside it.
	enforced, audited *release
	refused           *refusal
	// marked are conditions that hold until the next start or an end of their own: StateLost, Revoked, Repaired.
	marked   map[string]fleet.Condition
	troubles map[string]trouble
	// frozen holds the kernel as it is, because what is in it may not be replaced by what is known.
	frozen bool

	compiled   compiled
	beside     compiled // of the audit-level release, when it stands beside an enforced one
	state      *enforce.State
	drift      []enforce.Drift
	applied    map[enforce.SubjectID]*enforce.Ruleset
	everActed  bool
	adopted    bool // the backend holds what is pinned
	kernel     backoff
	suspension *control.Suspension
	repairs    []control.Repair
	timings    map[string]float64

	concluded *fleet.Report
	sent      *fleet.Report
}

func (k *knowledge) init() {
	k.marked = map[string]fleet.Condition{}
	k.troubles = map[string]trouble{}
	k.applied = map[enforce.SubjectID]*enforce.Ruleset{}
	k.timings = map[string]float64{}
}

// trouble notes err; the first moment of an unbroken row of failures stays.
func (k *knowledge) trouble(area string, err error, now time.Time) {
	since := now
	if old, there := k.troubles[area]; there {
		since = old.since
	}
	k.troubles[area] = trouble{err: err, since: since}
}

func (k *knowledge) solve(area string) { delete(k.troubles, area) }

func (k *knowledge) mark(kind, message string, now time.Time) {
	since := now
	if old, there := k.marked[kind]; there && old.Message == message {
		since = old.Since
	}
	k.marked[kind] = fleet.Condition{Type: kind, Since: since, Message: message}
}

// stalled says what needs a person, or "".
func (k *knowledge) stalled() string {
	for _, area := range []string{areaKernel, areaState, areaConfig, areaSource} {
		if stalled, ok := errors.AsType[*StalledError](k.troubles[area].err); ok {
			return area + ": " + stalled.Error()
		}
	}
	return ""
}

// problems lists the refusal and every trouble.
func (k *knowledge) problems() []control.Problem {
	out := []control.Problem{}
	if k.refused != nil {
		out = append(out, k.refused.problem())
	}
	for area, t := range k.troubles {
		out = append(out, problem(t.err, area, t.since))
	}
	slices.SortFunc(out, func(a, b control.Problem) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return out
}

func (r *refusal) problem() control.Problem {
	p := problem(r.err, "refused", r.since)
	p.Digest, p.Revision = r.digest, string(r.revision)
	return p
}

// conditions collects everything worth a condition in the report.
func (k *knowledge) conditions() []fleet.Condition {
	out := []fleet.Condition{}
	for _, r := range []*release{k.enforced, k.audited} {
		if r == nil {
			continue
		}
		for _, c := range r.verified.Conditions() {
			out = append(out, fleet.Condition{Type: c.Type, Since: r.checked, Digest: r.verified.Digest(), Message: c.Message})
		}
	}
	if k.refused != nil {
		out = append(out, fleet.Condition{
			Type: "Refused", Since: k.refused.since, Digest: k.refused.digest,
			Error: name(k.refused.err, "refused"), Message: clip(k.refused.err.Error(), maxMessage),
		})
	}
	for _, c := range k.marked {
		out = append(out, c)
	}
	for area, t := range k.troubles {
		kind := map[string]string{areaSource: "Unreachable", areaKernel: "NotApplied"}[area]
		if kind == "" {
			kind = "Trouble"
		}
		out = append(out, fleet.Condition{Type: kind, Since: t.since, Error: name(t.err, area), Message: clip(lasting(t.err).Error(), maxMessage)})
	}
	if k.suspension != nil {
		out = append(out, fleet.Condition{Type: "Suspended", Since: k.suspension.Since, Message: k.suspension.Reason + ", until " + k.suspension.Until.UTC().Format(time.RFC3339)})
	}
	if k.enforced == nil && k.audited == nil {
		out = append(out, fleet.Condition{Type: "Unprotected", Message: "no verified release is known to this host"})
	}
	slices.SortFunc(out, func(a, b fleet.Condition) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

// lasting is the part of err that does not change with each attempt, so that a report is not new for it.
func lasting(err error) error {
	if waiting, ok := errors.AsType[*WaitingError](err); ok {
		return waiting.Err
	}
	return err
}

// maxMessage bounds one condition's words, so that a report of 64 KiB holds them all.
const maxMessage = 2000

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
