// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/config"
)

// Tenant is one pair of trust and source that this host follows, with what it remembers of it.
type Tenant struct {
	// Name is "" for the host's own, which comes first; the fleet is its fleet, and it says who may report.
	Name string
	// Trust is in force; Links lead to it from the file that the operator installed. Lost says that some are missing.
	Trust *bundles.Trust
	Links []bundles.Link
	Lost  error
	// Source is where its releases come from, and Look how often to look there.
	Source bundles.Source
	Look   config.Source
	// Schedule is nil unless Look has a cron line.
	Schedule cron.Schedule

	Cache  *bundles.Cache
	Seen   *bundles.StateFile
	Trusts *bundles.TrustStore
}

// tenant is what the loop has learned of one Tenant; only the loop's goroutine touches it.
type tenant struct {
	Tenant
	pull puller
	// poll and scheduled are when to look at its source again.
	poll, scheduled time.Time
	seen            bundles.Seen
	// enforced is in force; audited has enough signers for audit only and stands beside it.
	enforced, audited *release
	refused           *refusal
	// marked are conditions that hold until the next start or an end of their own: StateLost, Revoked, Distrusted.
	marked   map[string]fleet.Condition
	troubles map[string]trouble
	// frozen holds the kernel as it is, because what is in it may not be replaced by what is known.
	frozen bool
	// forgot says that the marks were lost: the host's own last report is asked for before the next look.
	forgot bool
	// unheard holds it too: nothing is known of this tenant, and its source was not looked at since the start.
	unheard bool
}

func newTenant(t Tenant) *tenant {
	return &tenant{Tenant: t, marked: map[string]fleet.Condition{}, troubles: map[string]trouble{}}
}

// known says that a release of this tenant is held.
func (t *tenant) known() bool { return t.enforced != nil || t.audited != nil }

// inForce is the release that the tenant's rules come from, or nil.
func (t *tenant) inForce() *release {
	if t.enforced != nil {
		return t.enforced
	}
	return t.audited
}

func (t *tenant) mark(kind, message string, now time.Time) {
	markIn(t.marked, kind, t.Name, message, now)
}

func (t *tenant) trouble(area string, err error, now time.Time) {
	troubleIn(t.troubles, area, err, now)
}

func (t *tenant) solve(area string) { delete(t.troubles, area) }

// refuse notes that the newest revision is not acceptable; what is in force stays.
func (l *Loop) refuse(t *tenant, revision bundles.Revision, digest string, err error) {
	since := l.deps.Clock.Now()
	if old := t.refused; old != nil && old.revision == revision && name(old.err, "") == name(err, "") {
		since = old.since
	} else {
		l.deps.Watcher.Refused(name(err, "refused"))
		l.deps.Log.Error("release refused", "tenant", t.Name, "name", name(err, "refused"), "revision", revision, "digest", digest, "error", err)
	}
	t.refused = &refusal{tenant: t.Name, revision: revision, digest: digest, err: err, since: since}
}

// judge tells a source that wants to know what became of a revision: a mirror is asked when this one's word is stale
// or refused.
func (t *tenant) judge(revision bundles.Revision, refusal error) {
	source, wants := t.Source.(bundles.Judge)
	if !wants {
		return
	}
	stale := func(r *release) bool {
		return r != nil && r.verified.Revision() == revision &&
			slices.ContainsFunc(r.verified.Conditions(), func(c bundles.Condition) bool { return c.Type == bundles.ConditionStale })
	}
	source.Judged(revision, refusal, stale(t.enforced) || stale(t.audited))
}

// follow tells a source that wants to know which revision the next one should descend from.
func (t *tenant) follow(accepted bundles.Revision) {
	source, wants := t.Source.(bundles.Follower)
	if !wants {
		return
	}
	for _, r := range []*release{t.audited, t.enforced} {
		if r != nil && r.verified.Revision() == accepted {
			source.Accepted(accepted, r.verified.Kept())
			return
		}
	}
	source.Accepted(accepted, nil)
}

// forgetKept has everything fetched that the next release has: what the cache had cannot be read.
func (t *tenant) forgetKept() {
	if source, wants := t.Source.(bundles.Follower); wants {
		source.Accepted(t.seen.Revision, nil)
	}
}

// own is the host's own tenant.
func (l *Loop) own() *tenant { return l.tenants[0] }

// sets are the policies of the releases that choose picks, tenant by tenant.
func (l *Loop) sets(choose func(*tenant) *release) []*policies.Set {
	var out []*policies.Set
	for _, t := range l.tenants {
		if r := choose(t); r != nil {
			out = append(out, r.set)
		}
	}
	return out
}

// holding says that the kernel stays as it is, whatever is known of other tenants: the rulesets are made of all
// of them together, and one of them is not known well enough.
func (l *Loop) holding() bool {
	return slices.ContainsFunc(l.tenants, func(t *tenant) bool { return t.frozen || t.unheard })
}

// follow takes up the tenants of the settings: those that were there keep what is known of them.
func (l *Loop) follow(settings *Settings, now time.Time) error {
	var tenants []*tenant
	for _, s := range settings.Tenants {
		i := slices.IndexFunc(l.tenants, func(t *tenant) bool { return t.Name == s.Name })
		if i < 0 {
			t := newTenant(s)
			if err := l.restore(t, now); err != nil {
				return err
			}
			t.poll = now
			tenants = append(tenants, t)
			continue
		}
		t := l.tenants[i]
		if s.Trust.Digest() != t.Trust.Digest() || s.Look.URL != t.Look.URL {
			t.pull.known = "" // the same bytes may now be worth another answer
			l.due.verify = now
		}
		t.Tenant = s
		t.follow(t.seen.Revision)
		l.schedulePoll(t, now)
		t.poll = now
		tenants = append(tenants, t)
	}
	l.tenants = tenants
	return nil
}

// succeed follows the successors of the tenant's trust file that a release carries. They are on disk before
// they are in force, and hold whatever becomes of the release.
func (l *Loop) succeed(t *tenant, raw *bundles.Raw, now time.Time) error {
	next, links, err := bundles.Succeed(raw.FS, t.Trust)
	if err != nil || len(links) == 0 {
		return err //nolint:wrapcheck // a refusal has its own words
	}
	all := append(slices.Clone(t.Links), links...)
	if err := t.Trusts.Save(all); err != nil {
		return &stateError{fmt.Errorf("trust: %w", err)}
	}
	seen := t.seen
	seen.Trust = max(seen.Trust, next.Version)
	if err := t.Seen.Save(seen); err != nil {
		return &stateError{fmt.Errorf("marks: %w", err)}
	}
	l.deps.Log.Info("trust file succeeded", "tenant", t.Name, "from", t.Trust.Version, "to", next.Version, "epoch", next.Epoch, "sha256", next.Digest())
	t.Trust, t.Links, t.seen = next, all, seen
	l.etch(t, now)
	l.verifyAgain(now)
	return nil
}

// ErrNameTaken refuses a policy of one tenant that has the name of another's: reports could not tell them apart.
var ErrNameTaken = errors.New("another tenant has a policy of that name")

// checkNames compares a new release of a tenant with what the others hold.
func (l *Loop) checkNames(t *tenant, set *policies.Set) error {
	for _, other := range l.tenants {
		r := other.inForce()
		if other == t || r == nil {
			continue
		}
		taken := map[policies.ID]bool{}
		for _, p := range r.set.Policies() {
			taken[p.ID] = true
		}
		for _, p := range set.Policies() {
			if taken[p.ID] {
				return fmt.Errorf("%w: %s: %s is held by tenant %q", ErrNameTaken, p.Position, p.ID, other.Name)
			}
		}
	}
	return nil
}
