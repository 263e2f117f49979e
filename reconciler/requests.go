// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
)

// syncWaiter waits for a pull of each tenant that began after it asked.
type syncWaiter struct {
	numbers map[*tenant]uint64
	answer  chan *control.SyncResult
}

// Status answers what was known after the loop's last turn, and never waits for it.
func (l *Loop) Status(context.Context) (*control.Status, error) {
	if status := l.shown.Load(); status != nil {
		return status, nil
	}
	return nil, &control.Error{Name: "starting", Message: "the agent is starting", Advice: "ask again in a moment"}
}

// show keeps what Status answers up to date. What it hands out is never changed again.
func (l *Loop) show() {
	l.conclude()
	node, _ := l.deps.Host.Node()
	node.LSMs = append([]string{}, node.LSMs...) // a list, also of a kernel that names none
	status := &control.Status{
		Host: node, Version: l.deps.Version, Report: l.know.concluded, Rounds: l.rounds, Revision: string(l.own().pull.known),
		NextPoll: l.own().poll, LastPoll: l.own().pull.last, Problems: l.problems(), Tenants: l.tenantStatus(), Suspension: l.know.suspension,
		Repairs: append([]control.Repair{}, l.know.repairs...), Components: []enforce.Component{},
	}
	if l.know.state != nil {
		status.Components = append(status.Components, l.know.state.Components...)
	}
	l.shown.Store(status)
}

// tenantStatus says how each tenant's source was looked at, when there are several.
func (l *Loop) tenantStatus() []control.Tenant {
	if len(l.tenants) < 2 {
		return nil
	}
	var out []control.Tenant
	for _, t := range l.tenants {
		out = append(out, control.Tenant{
			Name: t.Name, Fleet: t.Trust.Fleet, Channel: t.Trust.Channel, Trust: t.Trust.Version,
			Revision: string(t.pull.known), NextPoll: t.poll, LastPoll: t.pull.last,
		})
	}
	return out
}

// Plan answers what would be done now, from a fresh look at the kernel.
func (l *Loop) Plan(ctx context.Context) (*control.Plan, error) {
	var out *control.Plan
	var failed error
	err := l.ask(ctx, func(ctx context.Context) {
		want := l.want()
		plan, err := l.observe(ctx, want)
		if err != nil {
			failed = err
			return
		}
		out = Describe(plan, l.applied(), want.Rulesets, l.know.compiled.gaps)
		out.Drift, out.Held = append(out.Drift, l.know.drift...), l.know.compiled.held
		if r := l.inForce(); r != nil {
			release := r.report()
			out.Release = &release
		}
		if len(l.know.beside.rulesets) > 0 {
			out.Audit = l.planBeside()
		}
	})
	return out, errors.Join(err, failed)
}

// planBeside says what the release that lacks signers would change, were it signed.
func (l *Loop) planBeside() *control.Plan {
	beside := Describe(Plan{}, l.know.compiled.rulesets, l.know.beside.rulesets, l.know.beside.gaps)
	for _, t := range l.tenants {
		if t.audited != nil && beside.Release == nil {
			release := t.audited.report()
			beside.Release = &release
		}
	}
	beside.Held = l.know.beside.held
	return beside
}

// inForce is the release that the rulesets come from; of several tenants, the first's that has one.
func (l *Loop) inForce() *release {
	for _, t := range l.tenants {
		if r := t.inForce(); r != nil {
			return r
		}
	}
	return nil
}

func (l *Loop) applied() []*enforce.Ruleset {
	out := []*enforce.Ruleset{}
	for _, rs := range l.know.applied {
		out = append(out, rs)
	}
	return out
}

// Rulesets answers what this host should obey.
func (l *Loop) Rulesets(ctx context.Context) (*control.Rulesets, error) {
	var out *control.Rulesets
	err := l.ask(ctx, func(context.Context) {
		l.want()
		node, _ := l.deps.Host.Node()
		out = &control.Rulesets{
			Rulesets: l.know.compiled.rulesets, Gaps: l.know.compiled.gaps,
			Labels: node.Labels, Hostname: node.Hostname, Postures: l.settings.Config.EnforcePostures(),
			Visible: l.settings.Config.Visibility, AllowHostAllowlist: l.settings.Config.AllowHostAllowlist, Mode: l.settings.Config.Mode,
			Capabilities: l.deps.Backend.Capabilities(), Protect: l.deps.Host.Protect(),
		}
		if l.know.state != nil {
			out.Observed = l.know.state.Subjects
		}
	})
	return out, err
}

// Sync looks at the source now.
func (l *Loop) Sync(ctx context.Context, request control.SyncRequest) (*control.SyncResult, error) {
	waiter := syncWaiter{answer: make(chan *control.SyncResult, 1)}
	var failed error
	err := l.ask(ctx, func(ctx context.Context) {
		if request.Reload {
			if failed = l.reload(ctx); failed != nil {
				return
			}
		}
		// A pull that is under way may have asked the source before the change was there.
		waiter.numbers = map[*tenant]uint64{}
		for _, t := range l.tenants {
			waiter.numbers[t] = t.pull.number + 1
		}
		l.syncs = append(l.syncs, waiter)
		for _, t := range l.tenants {
			l.startPull(ctx, t)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if !request.Wait {
		return &control.SyncResult{Outcome: control.OutcomeWaiting}, nil
	}
	select {
	case result := <-waiter.answer:
		return result, nil
	case <-l.stopped:
		return nil, ErrStopping
	case <-ctx.Done():
		return nil, fmt.Errorf("sync: %w", ctx.Err())
	}
}

// answerSyncs answers everybody whose last pull this was, and begins the next for those who came later.
func (l *Loop) answerSyncs(ctx context.Context, result pullResult) {
	var later []syncWaiter
	again := false
	for _, waiter := range l.syncs {
		for t, number := range waiter.numbers {
			if t == result.tenant && number <= result.number || !slices.Contains(l.tenants, t) {
				delete(waiter.numbers, t)
			}
		}
		if len(waiter.numbers) > 0 {
			later = append(later, waiter)
			_, waits := waiter.numbers[result.tenant]
			again = again || waits
			continue
		}
		l.show()
		waiter.answer <- l.outcome()
	}
	l.syncs = later
	if again {
		l.startPull(ctx, result.tenant)
	}
}

// outcome says how the pulls and the rounds after them ended.
func (l *Loop) outcome() *control.SyncResult {
	l.conclude()
	k := &l.know
	out := &control.SyncResult{Revision: string(l.own().pull.known), Report: k.concluded, Subjects: k.concluded.Subjects}
	if r := l.inForce(); r != nil {
		release := r.report()
		out.Release = &release
	}
	out.Outcome, out.Problem = l.judge()
	return out
}

func (l *Loop) judge() (control.Outcome, *control.Problem) {
	k := &l.know
	for _, t := range l.tenants {
		// A refusal stands while its revision is the newest that was seen.
		if _, unreached := t.troubles[areaSource]; t.refused != nil && !unreached && t.refused.revision == t.pull.known {
			p := t.refused.problem()
			return control.OutcomeRefused, &p
		}
	}
	switch {
	case l.settings.Config.Mode == enforce.ModeOff:
		return control.OutcomeOff, nil
	case k.suspension != nil:
		return control.OutcomeSuspended, nil
	}
	if p, stalled := l.firstTrouble(); p != nil {
		if stalled {
			return control.OutcomeStalled, p
		}
		return control.OutcomeWaiting, p
	}
	audited := slices.ContainsFunc(l.tenants, func(t *tenant) bool { return t.enforced == nil || t.audited != nil })
	switch {
	case l.deps.Backend.Name() == (ObserveOnly{}).Name():
		return control.OutcomeObserved, nil
	case k.compiled.held != "":
		return control.OutcomeHeld, &control.Problem{Name: "held", Message: k.compiled.held}
	case l.settings.Config.Mode == enforce.ModeAudit, audited, k.concluded.State == fleet.StateAudited:
		return control.OutcomeAudited, nil
	}
	return control.OutcomeEnforced, nil
}

// firstTrouble is what keeps the host from what is declared, in the order in which it is met.
func (l *Loop) firstTrouble() (*control.Problem, bool) {
	for _, wanted := range []string{areaSource, areaState, areaKernel} {
		var found *control.Problem
		var isStalled bool
		l.eachTrouble(func(tenant, area string, t trouble) {
			if area != wanted || found != nil && found.Tenant <= tenant {
				return
			}
			p := problem(t.err, area, t.since)
			p.Tenant = tenant
			_, isStalled = errors.AsType[*StalledError](t.err)
			found = &p
		})
		if found != nil {
			return found, isStalled
		}
	}
	return nil, false
}

// Suspend holds the host where it is.
func (l *Loop) Suspend(ctx context.Context, request control.SuspendRequest) (*control.Suspension, error) {
	var out *control.Suspension
	var failed error
	err := l.ask(ctx, func(ctx context.Context) { out, failed = l.suspend(ctx, request) })
	return out, errors.Join(err, failed)
}

// Resume ends a suspension.
func (l *Loop) Resume(ctx context.Context) error {
	return l.ask(ctx, func(ctx context.Context) { l.endSuspension(ctx, "somebody asked for it") })
}

// Reload reads configuration, labels and trust again.
func (l *Loop) Reload(ctx context.Context) error {
	var failed error
	err := l.ask(ctx, func(ctx context.Context) { failed = l.reload(ctx) })
	return errors.Join(err, failed)
}

// reload takes new settings, all of them or none, and looks at everything again.
func (l *Loop) reload(ctx context.Context) error {
	now := l.deps.Clock.Now()
	settings, err := l.deps.Load(ctx)
	if err != nil {
		l.deps.Log.Error("not reloaded", "error", err)
		l.know.trouble(areaConfig, &StalledError{Err: err}, now)
		l.send(false)
		return err //nolint:wrapcheck // has its own words
	}
	l.know.solve(areaConfig)
	if err := l.follow(settings, now); err != nil {
		l.know.trouble(areaConfig, &StalledError{Err: err}, now)
		l.send(false)
		return err
	}
	l.settings = settings
	l.needRestart(settings.Restart, now)
	l.deps.Log.Info("reloaded", "mode", settings.Config.Mode, "tenants", len(settings.Tenants), "trust", l.own().Trust.Version)
	l.converge(ctx, CauseChange)
	return nil
}

// needRestart says what a reload read and could not take up; nobody should believe an edit that has no effect.
func (l *Loop) needRestart(keys []string, now time.Time) {
	if len(keys) == 0 {
		delete(l.know.marked, fleet.ConditionRestartNeeded)
		return
	}
	message := "changed in the configuration, and only a restart takes it up: " + strings.Join(keys, ", ")
	l.know.mark(fleet.ConditionRestartNeeded, message, now)
	l.deps.Log.Warn("restart needed", "keys", keys)
}
