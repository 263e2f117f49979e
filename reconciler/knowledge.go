// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
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
	areaMemory = "memory"
)

// release is a verified release with its policies parsed.
type release struct {
	tenant   string
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
		Tenant: r.tenant, Level: string(r.verified.Level()), Name: doc.Name, Channel: doc.Channel, Epoch: doc.Epoch, Sequence: doc.Sequence,
		Digest: r.verified.Digest(), Revision: string(r.verified.Revision()), Signers: r.verified.Signers(),
	}
}

// refusal is the newest release that was refused.
type refusal struct {
	tenant   string
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

// knowledge is what the loop has learned of the host as a whole; only the loop's goroutine touches it.
type knowledge struct {
	// marked are conditions that hold until the next start or an end of their own: StateLost, Repaired.
	marked   map[string]fleet.Condition
	troubles map[string]trouble

	compiled   compiled
	trial      compiled // of the release that is looked at, which comes into force if it is accepted
	beside     compiled // of the audit-level release, when it stands beside an enforced one
	state      *enforce.State
	drift      []enforce.Drift
	applied    map[enforce.SubjectID]*enforce.Ruleset
	everActed  bool
	adopted    bool // the backend holds what is pinned
	kernel     backoff
	suspension *control.Suspension
	standDowns standDowns
	// resisted is the kernel's count at the last look, resistedHere what came since the start.
	resisted     *uint64
	resistedHere uint64
	repairs      []control.Repair
	timings      map[string]float64

	concluded *fleet.Report
	sent      [sha256.Size]byte // the gist of what was handed over last, zero before
	// kept is what is on disk of what the kernel knows and a boot makes it forget.
	kept []byte
}

func (k *knowledge) init() {
	k.marked = map[string]fleet.Condition{}
	k.troubles = map[string]trouble{}
	k.applied = map[enforce.SubjectID]*enforce.Ruleset{}
	k.timings = map[string]float64{}
}

// troubleIn notes err; the first moment of an unbroken row of failures stays.
func troubleIn(troubles map[string]trouble, area string, err error, now time.Time) {
	since := now
	if old, there := troubles[area]; there {
		since = old.since
	}
	troubles[area] = trouble{err: err, since: since}
}

// markIn notes a condition; its first moment stays.
func markIn(marked map[string]fleet.Condition, kind, tenant, message string, now time.Time) {
	since := now
	if old, there := marked[kind]; there && old.Message == message {
		since = old.Since
	}
	marked[kind] = fleet.Condition{Type: kind, Tenant: tenant, Since: since, Message: message}
}

func (k *knowledge) trouble(area string, err error, now time.Time) {
	troubleIn(k.troubles, area, err, now)
}

func (k *knowledge) solve(area string) { delete(k.troubles, area) }

func (k *knowledge) mark(kind, message string, now time.Time) {
	markIn(k.marked, kind, "", message, now)
}

// eachTrouble calls fn for everything that is wrong, of the host and then of each tenant.
func (l *Loop) eachTrouble(fn func(tenant, area string, t trouble)) {
	for area, t := range l.know.troubles {
		fn("", area, t)
	}
	for _, tenant := range l.tenants {
		for area, t := range tenant.troubles {
			fn(tenant.Name, area, t)
		}
	}
}

// stalled says what of the host and of its own tenant needs a person, or "". What a team's source needs is a
// condition: the host goes on without it.
func (l *Loop) stalled() string {
	var found []string
	l.eachTrouble(func(tenant, area string, t trouble) {
		if stalled, ok := errors.AsType[*StalledError](t.err); ok && area != areaReport && tenant == "" {
			found = append(found, area+": "+stalled.Error())
		}
	})
	slices.Sort(found)
	return strings.Join(found[:min(1, len(found))], "")
}

func placed(tenant, what string) string {
	if tenant == "" {
		return what
	}
	return "tenant " + tenant + ": " + what
}

// problems lists each refusal and every trouble.
func (l *Loop) problems() []control.Problem {
	out := []control.Problem{}
	for _, t := range l.tenants {
		if t.refused != nil {
			out = append(out, t.refused.problem())
		}
	}
	l.eachTrouble(func(tenant, area string, t trouble) {
		p := problem(t.err, area, t.since)
		p.Tenant = tenant
		out = append(out, p)
	})
	slices.SortFunc(out, func(a, b control.Problem) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return out
}

func (r *refusal) problem() control.Problem {
	p := problem(r.err, "refused", r.since)
	p.Tenant, p.Digest, p.Revision = r.tenant, r.digest, string(r.revision)
	return p
}

// conditions collects what is worth a condition in the report.
func (t *tenant) conditions() []fleet.Condition {
	var out []fleet.Condition
	for _, r := range []*release{t.enforced, t.audited} {
		if r == nil {
			continue
		}
		for _, c := range r.verified.Conditions() {
			out = append(out, fleet.Condition{Type: c.Type, Tenant: t.Name, Since: r.checked, Digest: r.verified.Digest(), Message: c.Message})
		}
	}
	if t.refused != nil {
		out = append(out, fleet.Condition{
			Type: "Refused", Tenant: t.Name, Since: t.refused.since, Digest: t.refused.digest,
			Error: name(t.refused.err, "refused"), Message: clip(t.refused.err.Error(), maxMessage),
		})
	}
	for _, c := range t.marked {
		out = append(out, c)
	}
	if source, ok := t.Source.(bundles.Judge); ok {
		for _, c := range source.Conditions() {
			out = append(out, fleet.Condition{Type: c.Type, Tenant: t.Name, Since: c.Since, Message: clip(c.Message, maxMessage)})
		}
	}
	if !t.known() {
		out = append(out, fleet.Condition{Type: "Unprotected", Tenant: t.Name, Message: placed(t.Name, "no verified release is known to this host")})
	}
	return out
}

// conditions collects everything worth a condition in the report.
func (l *Loop) conditions() []fleet.Condition {
	out := []fleet.Condition{}
	for _, t := range l.tenants {
		out = append(out, t.conditions()...)
	}
	for _, c := range l.know.marked {
		out = append(out, c)
	}
	l.eachTrouble(func(tenant, area string, t trouble) {
		kind := map[string]string{areaSource: "Unreachable", areaKernel: "NotApplied"}[area]
		out = append(out, fleet.Condition{
			Type: cmp.Or(kind, "Trouble"), Tenant: tenant, Since: t.since, Error: name(t.err, area), Message: clip(lasting(t.err).Error(), maxMessage),
		})
	})
	if s := l.know.suspension; s != nil {
		out = append(out, fleet.Condition{Type: "Suspended", Since: s.Since, Message: s.Reason + ", until " + s.Until.UTC().Format(time.RFC3339)})
	}
	slices.SortFunc(out, func(a, b fleet.Condition) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Error, b.Error))
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
