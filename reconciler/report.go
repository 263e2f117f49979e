// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
)

// repairShown is how long a repair stays a condition of the report.
const repairShown = time.Hour

// conclude draws the report from what is known now.
func (l *Loop) conclude() {
	k := &l.know
	now := l.deps.Clock.Now()
	if c, there := k.marked["Repaired"]; there && now.Sub(c.Since) > repairShown {
		delete(k.marked, "Repaired")
	}
	node, _ := l.deps.Host.Node()
	losses := l.deps.Counters.Losses()
	report := fleet.Report{
		Fleet: l.own().Trust.Fleet, Host: l.settings.HostID, Time: now.UTC(), Agent: l.deps.Version,
		Kernel: node.Kernel, OS: node.OS, LSMs: node.LSMs, Backend: l.deps.Backend.Name(),
		Mode: l.settings.Config.Mode, Events: l.deps.Counters.Counts(), Losses: losses,
		Inventory: fleet.ReportInventory{Labels: node.Labels}, Timings: maps.Clone(k.timings),
	}
	facts := fleet.Facts{Observed: k.state, Drift: k.drift, Gaps: k.compiled.gaps, Conditions: l.conditions(), Stalled: l.stalled()}
	for _, t := range l.tenants {
		for _, r := range []*release{t.enforced, t.audited} {
			if r != nil {
				facts.Released = true
				report.Releases = append(report.Releases, r.report())
			}
		}
	}
	for _, rs := range k.compiled.rulesets {
		if len(rs.Rules) == 0 && (k.state == nil || !observed(k.state, rs.Subject)) {
			continue // nothing is asked of the subject and nothing is in its place
		}
		facts.Declared = append(facts.Declared, fleet.Declared{
			Subject: rs.Subject, Digest: rs.Digest(), Rules: len(rs.Rules), Mode: rs.Mode, Held: rs.Held,
		})
	}
	concluded := fleet.Conclude(report, facts)
	k.concluded = &concluded
}

func observed(state *enforce.State, subject enforce.SubjectID) bool {
	_, there := state.Subjects[subject]
	return there
}

// send hands the report over when it says something new, or when its time has come. It never waits: a
// report that nobody took yet is replaced by the newer one.
func (l *Loop) send(due bool) {
	l.conclude()
	now := l.deps.Clock.Now()
	heartbeat := l.settings.Config.Status.Heartbeat
	if l.due.report.IsZero() || due {
		// Added to now, so that it comes when its time has passed, whatever becomes of the clock meanwhile.
		l.due.report = now.Add(fleet.NextSlot(l.settings.HostID, heartbeat, now).Sub(now))
	}
	said := gist(l.know.concluded)
	if !due && said == l.know.sent {
		return
	}
	report := *l.know.concluded // the reporter numbers its own copy, and may add to its conditions
	report.Conditions = slices.Clone(report.Conditions)
	mail := Mail{Report: &report, Trust: l.own().Trust}
	if r := l.own().enforced; r != nil {
		mail.Hosts = r.hosts
	}
	l.know.sent = said
	l.status()
	for {
		select {
		case l.mail <- mail:
			return
		case <-l.mail:
		}
	}
}

// gist is a digest of a report without what changes by itself: two with the same say the same. The long lists go into it
// one by one, so that it takes no memory to speak of.
func gist(r *fleet.Report) [sha256.Size]byte {
	x := *r
	x.Time, x.Sequence, x.Timings, x.Events, x.Losses = time.Time{}, 0, nil, nil, nil
	hash := sha256.New()
	for i := range x.Drift {
		_, _ = io.WriteString(hash, canonical(&x.Drift[i])+"\n")
	}
	for i := range x.Gaps {
		_, _ = io.WriteString(hash, canonical(&x.Gaps[i])+"\n")
	}
	x.Drift, x.Gaps = nil, nil
	_, _ = io.WriteString(hash, canonical(&x))
	return [sha256.Size]byte(hash.Sum(nil))
}

// status tells the service manager in one line.
func (l *Loop) status() {
	line := "STATUS=" + string(l.know.concluded.State)
	if n := len(l.know.concluded.Releases); n > 0 {
		line += ", release " + l.know.concluded.Releases[0].Digest
	}
	l.deps.Notify(line)
}

// collectEvery is how often this host's slot for folding the fleet's reports comes.
const collectEvery = time.Minute

// deliver takes the reports to their destination, one at a time, sends again what could not be sent, and
// helps to fold in this host's own slot.
func (l *Loop) deliver(ctx context.Context, hostID string) {
	var again backoff
	var retry <-chan time.Time
	slot := l.slot(hostID)
	for {
		var err error
		collect := false
		select {
		case <-ctx.Done():
			l.last()
			return
		case mail := <-l.mail:
			err = l.deps.Reporter.Report(ctx, mail)
			collect = err == nil
		case <-retry:
			err = l.deps.Reporter.Flush(ctx)
			collect = err == nil
		case <-slot:
			slot = l.slot(hostID)
			collect = again.failures == 0
		}
		if collect {
			again.succeed()
			retry = nil
			if err := l.deps.Reporter.Collect(ctx); err != nil {
				l.deps.Log.Log(ctx, troubleLevel(ctx), "status not collected", "error", err)
			}
		}
		if err == nil {
			continue
		}
		now := l.deps.Clock.Now()
		retry = l.deps.Clock.After(again.fail(now, random).Sub(now))
		l.deps.Log.Log(ctx, troubleLevel(ctx), "report not sent", "error", err, "failures", again.failures)
	}
}

// troubleLevel is lower for what the agent's own stop cut short: the spool holds it for the next start.
func troubleLevel(ctx context.Context) slog.Level {
	if ctx.Err() != nil {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (l *Loop) slot(hostID string) <-chan time.Time {
	now := l.deps.Clock.Now()
	return l.deps.Clock.After(fleet.NextSlot(hostID, collectEvery, now).Sub(now))
}

// lastReport bounds the report that is sent while stopping, and mailGrace the wait for it and for a push that
// was under way: nobody who stops an agent waits for a server.
const (
	lastReport = time.Second
	mailGrace  = 1500 * time.Millisecond
)

// last sends a report that is still waiting when the agent stops.
func (l *Loop) last() {
	select {
	case mail := <-l.mail:
		ctx, cancel := context.WithTimeout(context.Background(), lastReport)
		defer cancel()
		if err := l.deps.Reporter.Report(ctx, mail); err != nil {
			l.deps.Log.Info("last report not sent, the next start sends it", "error", err)
		}
	default:
	}
}
