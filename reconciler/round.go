// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler/control"
)

// start brings the loop to the point where the first look at the source is due: what was in force before
// is in force again, whatever the source says.
func (l *Loop) start(ctx context.Context) error {
	now := l.deps.Clock.Now()
	l.started = now
	settings, err := l.deps.Load(ctx)
	if err != nil {
		return err //nolint:wrapcheck // has its own words
	}
	l.settings = settings
	if err := l.follow(settings, now); err != nil {
		return err
	}
	journal, err := l.exec.interrupted()
	switch {
	case err != nil:
		l.deps.Log.Warn("journal not readable", "error", err)
		l.know.mark("StateLost", "the journal of the last plan was torn", now)
	case journal != nil:
		l.deps.Log.Warn("an earlier agent died while it changed the kernel", "steps", journal.Steps, "done", journal.Done)
	}
	l.restoreSuspension(now)
	l.restoreKept(now)
	l.restoreStandDown(ctx, now)
	l.converge(ctx, CauseStart)
	giveBack(l.own().inForce())
	return nil
}

// want is what the host should obey now, and the plan beside it of a release that is not signed enough.
func (l *Loop) want() Want {
	k := &l.know
	mode := l.settings.Config.Mode
	if mode == enforce.ModeOff {
		return Want{Off: true, Adopt: !k.adopted}
	}
	enforced := l.sets(func(t *tenant) *release { return t.enforced })
	audited := l.sets(func(t *tenant) *release { return t.audited })
	// Of a tenant with a release beside the enforced one, the newer is looked at; of the others what is in force.
	newest := l.sets(func(t *tenant) *release { return cmp.Or(t.audited, t.enforced) })
	switch {
	case len(enforced) > 0:
		k.compiled = l.compile(k.compiled, enforced, mode)
		if len(audited) > 0 {
			k.beside = l.compile(k.beside, newest, enforce.ModeAudit)
		} else {
			k.beside = compiled{}
		}
	case len(audited) > 0:
		// Nothing is displaced: signed enough for audit, it is tried in audit.
		k.compiled, k.beside = l.compile(k.compiled, audited, enforce.ModeAudit), compiled{}
	default:
		k.compiled, k.beside = compiled{}, compiled{}
	}
	return Want{Known: len(k.compiled.rulesets) > 0 && !l.holding(), Rulesets: k.compiled.rulesets, Adopt: !k.adopted}
}

// converge runs one round: compile, observe, plan, act if the gate is open, observe again, conclude.
func (l *Loop) converge(ctx context.Context, cause Cause) {
	begun := l.deps.Clock.Now()
	l.due.observe = begun.Add(l.settings.Config.DriftInterval)
	if past(l.due.verify, begun) || l.due.verify.IsZero() {
		l.verifyAgain(begun)
	}
	want := l.want()
	l.identify()
	plan, err := l.observe(ctx, want)
	if err == nil && l.thaw() {
		want = l.want()
		plan, err = l.observe(ctx, want)
	}
	switch {
	case err == nil && !plan.Empty():
		err = l.act(ctx, cause, want, plan)
	case err == nil && want.Known:
		// The kernel holds it already, from an agent before this one.
		l.know.everActed = true
		l.remember(want)
	}
	if err != nil && ctx.Err() != nil {
		return // cut short by the agent's own stop: nothing is wrong with the kernel, and nobody is told so
	}
	l.settle(err)
	if err == nil {
		l.deps.Audited(l.audited())
	}
	l.keep()
	l.rounds++
	l.know.timings["round"] = l.deps.Clock.Now().Sub(begun).Seconds()
	l.conclude()
	l.deps.Watcher.Round(cause, l.deps.Clock.Now().Sub(begun), l.know.concluded)
	l.send(false)
}

// observe reads the kernel and returns what would have to be done.
func (l *Loop) observe(ctx context.Context, want Want) (Plan, error) {
	state, err := l.deps.Backend.Observe(ctx, want.Rulesets)
	if err != nil {
		l.know.state = nil
		return Plan{}, fmt.Errorf("observe: %w", err)
	}
	l.know.state = &state
	l.selfProtection(l.deps.Clock.Now())
	input := enforce.DiffInput{Want: want.Rulesets, Have: state, Gaps: l.know.compiled.gaps, Before: l.know.drift, Now: l.deps.Clock.Now()}
	if !want.Known {
		// Nobody said what the host should obey: what the kernel holds is then neither missing nor extra.
		input.Want, input.Have.Subjects = nil, nil
	}
	l.know.drift = enforce.Diff(input)
	return NewPlan(want, state), nil
}

// thaw ends a freeze when there is nothing to keep: a kernel that holds no ruleset is better off with an older
// release than with none.
func (l *Loop) thaw() bool {
	if !l.holding() || len(l.know.state.Subjects) > 0 {
		return false
	}
	for _, t := range l.tenants {
		t.frozen, t.unheard = false, false
	}
	return true
}

// act carries out the plan if it may, and reads the kernel again.
func (l *Loop) act(ctx context.Context, cause Cause, want Want, plan Plan) error {
	now := l.deps.Clock.Now()
	changed := !l.know.everActed || !l.isApplied(want)
	g := gate{mode: l.settings.Config.Mode, suspended: l.know.suspension != nil, changed: changed, blocked: l.know.kernel.blocked(now)}
	if !g.open() {
		return l.adopt(ctx, plan)
	}
	found := l.know.drift
	l.deps.Log.Info("changing the kernel", "cause", cause, "plan", plan.String())
	if err := l.exec.execute(ctx, plan, maps.Clone(l.know.applied)); err != nil {
		_, again := l.observe(ctx, want)
		if again != nil {
			l.deps.Log.Error("kernel not readable", "error", again)
		}
		return err
	}
	l.know.everActed = true
	l.know.adopted, want.Adopt = true, false
	l.remember(want)
	if !changed {
		l.repaired(found, now)
	}
	l.know.timings["apply"] = l.deps.Clock.Now().Sub(now).Seconds()
	rest, err := l.observe(ctx, want)
	if err == nil && !rest.Empty() {
		err = fmt.Errorf("the kernel is not as it should be after the plan: %s", rest)
	}
	return err
}

// adopt takes hold of what is pinned while nothing else may be done: events are read and explained then, too.
func (l *Loop) adopt(ctx context.Context, plan Plan) error {
	only := plan.adoption()
	if only.Empty() || l.know.kernel.blocked(l.deps.Clock.Now()) {
		return nil
	}
	if err := l.exec.execute(ctx, only, nil); err != nil {
		return err
	}
	l.know.adopted = true
	return nil
}

// settle notes a failure and when to try again, or its end.
func (l *Loop) settle(err error) {
	if err == nil {
		// A round that was not allowed to act proves nothing about the failure before it.
		if !l.know.kernel.blocked(l.deps.Clock.Now()) {
			l.know.kernel.succeed()
			l.know.solve(areaKernel)
		}
		return
	}
	now := l.deps.Clock.Now()
	l.due.retry = l.know.kernel.fail(now, random)
	err = classify(err, l.know.kernel.failures, l.due.retry)
	l.deps.Log.Error("kernel not as declared", "error", err, "failures", l.know.kernel.failures)
	l.know.trouble(areaKernel, err, now)
}

// isApplied is true when want is what was carried out last.
func (l *Loop) isApplied(want Want) bool {
	if len(want.Rulesets) != len(l.know.applied) {
		return false
	}
	for _, rs := range want.Rulesets {
		applied := l.know.applied[rs.Subject]
		if applied == nil || (applied != rs && (applied.Digest() != rs.Digest() || applied.Mode != rs.Mode)) {
			return false
		}
	}
	return true
}

func (l *Loop) remember(want Want) {
	clear(l.know.applied)
	for _, rs := range want.Rulesets {
		l.know.applied[rs.Subject] = rs
	}
}

// maxRepairs is how many repairs are kept for people to look at.
const maxRepairs = 100

// repaired writes down what was found and corrected; it stays a condition of the report for a while, since
// the state itself is well again before anybody reads it.
func (l *Loop) repaired(found []enforce.Drift, now time.Time) {
	count := 0
	last := ""
	for _, d := range found {
		if !d.Repairable() {
			continue
		}
		count++
		last = fmt.Sprintf("%s: declared %s, observed %s", d.Kind, d.Declared, d.Observed)
		l.deps.Watcher.Repaired(d.Kind)
		l.deps.Log.Warn("drift repaired", "kind", d.Kind, "subject", d.Subject, "declared", d.Declared, "observed", d.Observed)
		l.know.repairs = append(l.know.repairs, control.Repair{Time: now, Drift: d})
	}
	if over := len(l.know.repairs) - maxRepairs; over > 0 {
		l.know.repairs = l.know.repairs[over:]
	}
	if count > 0 {
		l.know.mark("Repaired", fmt.Sprintf("%d differences at %s, the last: %s", count, now.UTC().Format(time.RFC3339), clip(last, 300)), now)
	}
}

// identify tells the event pipe who this host is, as far as it changed.
func (l *Loop) identify() {
	node, _ := l.deps.Host.Node()
	l.deps.Identified(l.own().Trust.Fleet, node.Hostname, l.settings.Config.EnforcePostures())
}

// audited are the policies in force that deny nothing yet.
func (l *Loop) audited() []enforce.AuditedPolicy {
	var list []enforce.AuditedPolicy
	for _, subject := range slices.Sorted(maps.Keys(l.know.applied)) {
		list = append(list, l.know.applied[subject].Audited()...)
	}
	return list
}

// canonical is a value as text that is equal only for equal values.
func canonical(value any) string {
	text, err := json.Marshal(value)
	if err != nil { // only types of this program get here, and they all encode
		return fmt.Sprintf("%#v", value)
	}
	return string(text)
}
