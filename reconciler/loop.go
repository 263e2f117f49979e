// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package reconciler is the agent's loop: it pulls releases, verifies and compiles them, compares what they
// ask for with what the kernel holds, closes the difference and says what it found.
//
// One goroutine owns everything the loop knows, and one select decides what it does next. Pulling and
// reporting, which wait for others, run beside it, one at a time each, and talk to it through channels.
// What is to be done to the kernel is decided by pure functions (NewPlan, gate) and done in one place
// (executor). Whatever fails, the last good ruleset stays in the kernel: nothing is removed unless a complete
// verified release says so.
package reconciler

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
)

// Settings is what a reload may change.
type Settings struct {
	Config *config.Config
	HostID string
	// Restart names the keys of the configuration that changed and that a reload cannot take up.
	Restart []string
	// Tenants is what this host follows, its own first.
	Tenants []Tenant
}

// Host is what the loop asks of this host.
type Host interface {
	// Node is the host itself as it is now; ok is false until it is known.
	Node() (node inventory.Node, ok bool)
	// Changed is signalled when Node answers something else than before.
	Changed() <-chan struct{}
	// Resolve follows the symlinks in paths and returns those that lead elsewhere.
	Resolve(paths []string) map[string]string
	// Protect lists what must stay possible on this host.
	Protect() []enforce.ProtectPair
}

// Mail is a report and what a reporter needs to know beside it.
type Mail struct {
	Report *fleet.Report
	Trust  *bundles.Trust
	// Hosts is who is enrolled, from the release in force; nil when it does not say.
	Hosts *fleet.AllowedSigners
}

// Reporter takes reports to the fleet. Its methods may take long and are called from one goroutine.
type Reporter interface {
	Report(ctx context.Context, mail Mail) error
	// Flush sends what an earlier Report could not.
	Flush(ctx context.Context) error
	// Collect helps to fold the fleet's reports, when it is asked to and the time has come.
	Collect(ctx context.Context) error
}

// Counters is what the event pipe counted.
type Counters interface {
	Counts() []fleet.EventCount
	Losses() map[string]uint64
}

// Watcher is told what happened, for metrics.
type Watcher interface {
	Round(cause Cause, took time.Duration, report *fleet.Report)
	Refused(name string)
	Repaired(kind enforce.DriftKind)
	Pulled(ok bool)
}

// Clock is time.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// Deps is everything the loop needs of others; all but the protector are required.
type Deps struct {
	// Load reads the settings, at the start and at every reload.
	Load     func(ctx context.Context) (*Settings, error)
	StateDir string
	Host     Host
	Backend  enforce.Backend
	Reporter Reporter
	// Protector is nil where the agent does not protect itself.
	Protector Protector
	Counters  Counters
	Watcher   Watcher
	Clock     Clock
	Log       *slog.Logger
	// Identified is told whenever what events say of this host changes.
	Identified func(fleetName, hostname string, postures enforce.Postures)
	// Audited is told after each round without a failure which policies are in force and deny nothing yet.
	Audited func(policies []enforce.AuditedPolicy)
	// Notify tells the service manager; see sd_notify(3).
	Notify func(state string)
	// Watchdog is how often the service manager wants to hear of progress; 0: never.
	Watchdog time.Duration
	Version  string
}

// Loop is the agent's loop.
type Loop struct {
	deps     Deps
	settings *Settings
	exec     executor

	requests chan func(context.Context)
	pulled   chan pullResult
	mail     chan Mail
	stopped  chan struct{}

	tenants []*tenant
	due     deadlines
	know    knowledge
	syncs   []syncWaiter
	rounds  uint64
	started time.Time
	// shown is the status as of the loop's last turn: whoever asks does not wait for a kernel that takes its time.
	shown atomic.Pointer[control.Status]
}

// deadlines say when something is to be done; the zero time means never.
type deadlines struct {
	observe, verify, report, retry, resume, standDown, watchdog time.Time
}

// earliest returns how long to wait from now.
func (d deadlines) earliest(now time.Time) time.Duration {
	wait := time.Hour
	for _, at := range []time.Time{d.observe, d.verify, d.report, d.retry, d.resume, d.standDown, d.watchdog} {
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(now), 0))
		}
	}
	return wait
}

// wait returns how long nothing is due, of the loop and of its tenants.
func (l *Loop) wait(now time.Time) time.Duration {
	wait := l.due.earliest(now)
	for _, t := range l.tenants {
		for _, at := range []time.Time{t.poll, t.scheduled} {
			if !at.IsZero() {
				wait = min(wait, max(at.Sub(now), 0))
			}
		}
	}
	return wait
}

func past(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// New returns a loop that has not begun.
func New(deps Deps) *Loop {
	l := &Loop{
		deps: deps,
		exec: executor{
			backend: deps.Backend, dir: deps.StateDir, now: deps.Clock.Now,
			troubled: func(err error) { deps.Log.Error("enforcing without a journal", "error", err) },
		},
		requests: make(chan func(context.Context)),
		pulled:   make(chan pullResult),
		mail:     make(chan Mail, 1),
		stopped:  make(chan struct{}),
	}
	l.know.init()
	return l
}

// Run runs the loop until ctx ends. What is in the kernel stays there.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.stopped)
	if err := l.start(ctx); err != nil {
		return err
	}
	hostID := l.settings.HostID
	mailing := make(chan struct{})
	go func() { defer close(mailing); l.deliver(ctx, hostID) }()
	l.deps.Notify("READY=1")
	namesMoved := l.namesMoved()
	for {
		l.progress()
		select {
		case <-ctx.Done():
			l.deps.Notify("STOPPING=1")
			select {
			case <-mailing:
			case <-l.deps.Clock.After(mailGrace):
				// A transport may ignore its context. The report is on disk, and goes with the next start.
				l.deps.Log.Info("the reporter did not stop in time; leaving it, the next start sends what it holds", "grace", mailGrace)
			}
			return nil
		case <-l.deps.Clock.After(l.wait(l.deps.Clock.Now())):
		case <-l.deps.Host.Changed():
			l.converge(ctx, CauseChange)
		case <-namesMoved:
			if l.leadElsewhere() {
				l.converge(ctx, CauseChange)
			}
		case do := <-l.requests:
			do(ctx)
		case result := <-l.pulled:
			l.took(ctx, result)
		}
		l.work(ctx)
	}
}

// namesMoved is nil, which never comes, with a backend that does not watch names: symlinks are then followed at each look.
func (l *Loop) namesMoved() <-chan struct{} {
	if w, watches := l.deps.Backend.(enforce.NameWatcher); watches {
		return w.NamesMoved()
	}
	return nil
}

// work does everything that is due.
func (l *Loop) work(ctx context.Context) {
	now := l.deps.Clock.Now()
	if l.suspensionIsOver(now) {
		l.endSuspension(ctx, "its time is over")
	}
	if past(l.due.standDown, now) {
		l.standDownIsOver(ctx)
	}
	for _, t := range l.tenants {
		if past(t.poll, now) || past(t.scheduled, now) {
			l.startPull(ctx, t)
		}
	}
	if past(l.due.retry, now) {
		l.due.retry = time.Time{}
		l.converge(ctx, CauseRetry)
	}
	if past(l.due.observe, now) {
		l.converge(ctx, CauseDrift)
	}
	if past(l.due.report, now) {
		l.send(true)
	}
}

// progress runs after each turn of the loop; the service manager hears of a living loop from nowhere else.
func (l *Loop) progress() {
	l.show()
	now := l.deps.Clock.Now()
	if l.deps.Watchdog <= 0 {
		return
	}
	if l.due.watchdog.IsZero() || past(l.due.watchdog, now) {
		l.due.watchdog = now.Add(l.deps.Watchdog / 3)
		if !slices.ContainsFunc(l.tenants, func(t *tenant) bool { return t.pull.overdue(now) }) {
			l.deps.Notify("WATCHDOG=1")
		}
	}
}

// ask runs fn inside the loop and waits for it.
func (l *Loop) ask(ctx context.Context, fn func(context.Context)) error {
	done := make(chan struct{})
	select {
	case l.requests <- func(ctx context.Context) { fn(ctx); l.show(); close(done) }:
		<-done
		return nil
	case <-l.stopped:
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the asker's own
	}
}
