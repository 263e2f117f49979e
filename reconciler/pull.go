// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/bundles"
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

// pullResult is what one look at the source found.
type pullResult struct {
	number   uint64
	revision bundles.Revision
	raw      *bundles.Raw // nil when nothing changed
	err      error
	took     time.Duration
}

// startPull looks at the source unless somebody is looking already.
func (l *Loop) startPull(ctx context.Context) {
	now := l.deps.Clock.Now()
	l.schedulePoll(now)
	if l.pull.running {
		return
	}
	timeout := l.settings.Config.Source.Timeout
	l.pull.running, l.pull.begun, l.pull.timeout = true, now, timeout
	l.pull.number++
	pullCtx, cancel := context.WithTimeout(ctx, timeout)
	l.pull.cancel = cancel
	go look(pullCtx, l.settings.Source, l.pull.number, l.pull.known, l.deps.Clock.Now, l.pulled)
}

// look is the body of one pull; out has room for the one result.
func look(ctx context.Context, source bundles.Source, number uint64, known bundles.Revision, now func() time.Time, out chan<- pullResult) {
	begun := now()
	result := pullResult{number: number}
	result.revision, result.err = source.Latest(ctx)
	if result.err == nil && result.revision != known {
		result.raw, result.err = source.Fetch(ctx, result.revision)
	}
	result.took = now().Sub(begun)
	out <- result
}

// schedulePoll says when to look again: at the interval, and at the cron line's next time.
func (l *Loop) schedulePoll(now time.Time) {
	source := l.settings.Config.Source
	l.due.poll = now.Add(jitter(source.Interval, source.Jitter, random))
	l.due.scheduled = time.Time{}
	if l.settings.Schedule != nil {
		l.due.scheduled = l.settings.Schedule.Next(now)
	}
}

// took takes in what a pull found.
func (l *Loop) took(ctx context.Context, result pullResult) {
	now := l.deps.Clock.Now()
	l.pull.running = false
	l.pull.cancel()
	l.pull.last = now
	switch {
	case result.err != nil && ctx.Err() != nil: // the agent stops
	case result.err != nil:
		l.pullFailed(result, now)
	default:
		l.deps.Watcher.Pulled(true)
		l.pull.retry.succeed()
		l.know.solve(areaSource)
		if result.raw != nil {
			l.pull.fetched = result.took
			l.consider(ctx, result)
		}
	}
	l.answerSyncs(ctx, result)
}

func (l *Loop) pullFailed(result pullResult, now time.Time) {
	l.deps.Watcher.Pulled(false)
	// Refused by its shape (too large, a symlink, no such channel): the revision is as bad as one that
	// Verify refuses, and the same answer is due.
	if name := bundles.RefusalName(result.err); name != "" && result.revision != "" {
		l.pull.known = result.revision
		l.refuse(result.revision, "", result.err)
		l.send(false)
		return
	}
	next := l.pull.retry.fail(now, random)
	if next.After(l.due.poll) || l.settings.Config.Source.Interval > backoffMost {
		l.due.poll = next
	}
	err := classify(result.err, 0, l.due.poll)
	l.deps.Log.Warn("source not reached", "error", err, "failures", l.pull.retry.failures)
	l.know.trouble(areaSource, err, now)
	l.send(false)
}
