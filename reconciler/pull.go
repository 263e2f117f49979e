// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/fleet"
)

// puller remembers the one pull that may be under way.
type puller struct {
	running bool
	number  uint64 // of the newest pull begun
	begun   time.Time
	last    time.Time
	timeout time.Duration
	// known is the revision that was looked at already; the same again costs no fetch.
	known   bundles.Revision
	retry   backoff
	cancel  context.CancelFunc
	fetched time.Duration
}

// overdue is true when a pull ignores its own deadline: the process is then worth restarting.
func (p *puller) overdue(now time.Time) bool {
	return p.running && now.Sub(p.begun) > 2*p.timeout+time.Minute
}

// pullResult is what one look at a tenant's source found.
type pullResult struct {
	tenant   *tenant
	number   uint64
	revision bundles.Revision
	raw      *bundles.Raw // nil when nothing changed
	err      error
	took     time.Duration
	// asked says that the host's own last report was asked for; report is nil when there is none.
	asked     bool
	report    *fleet.Report
	recallErr error
}

// startPull looks at a tenant's source unless somebody is looking already.
func (l *Loop) startPull(ctx context.Context, t *tenant) {
	now := l.deps.Clock.Now()
	l.schedulePoll(t, now)
	if t.pull.running {
		return
	}
	t.pull.running, t.pull.begun, t.pull.timeout = true, now, t.Look.Timeout
	t.pull.number++
	pullCtx, cancel := context.WithTimeout(ctx, t.Look.Timeout)
	t.pull.cancel = cancel
	go l.look(pullCtx, t.Source, pullResult{tenant: t, number: t.pull.number, asked: t.forgot}, t.pull.known, l.settings.HostID)
}

// look is the body of one pull. Nobody takes its result when the loop has ended.
func (l *Loop) look(ctx context.Context, source bundles.Source, result pullResult, known bundles.Revision, hostID string) {
	begun := l.deps.Clock.Now()
	if result.asked {
		l.recall(ctx, hostID, &result)
	}
	result.revision, result.err = source.Latest(ctx)
	if result.err == nil && result.revision != known {
		result.raw, result.err = source.Fetch(ctx, result.revision)
	}
	result.took = l.deps.Clock.Now().Sub(begun)
	select {
	case l.pulled <- result:
	case <-l.stopped:
	}
}

// schedulePoll says when to look again: at the interval, and at the cron line's next time.
func (l *Loop) schedulePoll(t *tenant, now time.Time) {
	t.poll = now.Add(jitter(t.Look.Interval, t.Look.Jitter, random))
	t.scheduled = time.Time{}
	if t.Schedule != nil {
		t.scheduled = t.Schedule.Next(now)
	}
}

// took takes in what a pull found.
func (l *Loop) took(ctx context.Context, result pullResult) {
	now := l.deps.Clock.Now()
	t := result.tenant
	t.pull.running = false
	t.pull.cancel()
	t.pull.last = now
	heard := t.unheard
	t.unheard = false
	l.recalled(&result, now)
	switch {
	case !slices.Contains(l.tenants, t): // the configuration does not name it any more
	case result.err != nil && ctx.Err() != nil: // the agent stops
	case result.err != nil:
		l.deps.Watcher.Pulled(false)
		l.pullFailed(result, now)
	default:
		l.deps.Watcher.Pulled(true)
		t.pull.retry.succeed()
		t.solve(areaSource)
		if result.raw != nil {
			t.pull.fetched = result.took
			l.consider(ctx, result)
			heard = false // whatever it was, the kernel was looked at
		}
	}
	if heard {
		l.converge(ctx, CauseChange)
	}
	l.answerSyncs(ctx, result)
}

func (l *Loop) pullFailed(result pullResult, now time.Time) {
	t := result.tenant
	// Refused by its shape (too large, a symlink, no such channel): the revision is as bad as one that
	// Verify refuses, and the same answer is due.
	if bundles.RefusalName(result.err) != "" && result.revision != "" && !errors.Is(result.err, bundles.ErrWire) {
		t.pull.known = result.revision
		t.judge(result.revision, result.err)
		l.refuse(t, result.revision, "", result.err)
		l.send(false)
		return
	}
	next := t.pull.retry.fail(now, random)
	if next.After(t.poll) || t.Look.Interval > backoffMost {
		t.poll = next
	}
	err := classify(result.err, 0, t.poll)
	l.deps.Log.Warn("source not reached", "tenant", t.Name, "error", err, "failures", t.pull.retry.failures)
	t.trouble(areaSource, err, now)
	l.send(false)
}
