// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/internal/statefile"
)

const suspensionMagic = "muster-suspension/1"

func (l *Loop) suspensionPath() string { return filepath.Join(l.deps.StateDir, "suspended") }

// restoreSuspension takes up a suspension that outlives the agent. A torn one is over: a host that nobody
// knows to be held would never change again.
func (l *Loop) restoreSuspension(now time.Time) {
	var saved control.Suspension
	err := statefile.Load(l.suspensionPath(), suspensionMagic, &saved)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.deps.Log.Warn("suspension not readable; it is over", "error", err)
		l.know.mark("StateLost", "a suspension was torn and is over", now)
		l.removeSuspension()
	case !saved.Until.After(now):
		l.removeSuspension()
	default:
		l.know.suspension = &saved
		l.due.resume = suspensionEnds(saved, now)
	}
}

// suspend holds the host where it is; it is on disk before it is in force.
func (l *Loop) suspend(ctx context.Context, request control.SuspendRequest) (*control.Suspension, error) {
	now := l.deps.Clock.Now()
	s := &control.Suspension{Reason: request.Reason, Until: request.Until.UTC(), Since: now.UTC()}
	if err := statefile.Save(l.suspensionPath(), suspensionMagic, s); err != nil {
		return nil, fmt.Errorf("suspension: %w", err)
	}
	l.know.suspension = s
	l.due.resume = suspensionEnds(*s, now)
	l.deps.Log.Warn("suspended", "reason", s.Reason, "until", s.Until)
	l.converge(ctx, CauseChange)
	return s, nil
}

// suspensionEnds is when a suspension is over: when what is left of it has passed, and that is never more than was
// asked for. A clock that is set back, while the agent runs or while it does not, holds no host for longer.
func suspensionEnds(s control.Suspension, now time.Time) time.Time {
	left := min(s.Until.Sub(now), s.Until.Sub(s.Since))
	return now.Add(max(left, 0))
}

// suspensionIsOver is true as well when the clock has passed its end, be it by a leap.
func (l *Loop) suspensionIsOver(now time.Time) bool {
	s := l.know.suspension
	return s != nil && (past(l.due.resume, now) || !s.Until.After(now))
}

// endSuspension lets the loop act again, at once.
func (l *Loop) endSuspension(ctx context.Context, why string) {
	if l.know.suspension == nil {
		return
	}
	l.know.suspension = nil
	l.due.resume = time.Time{}
	l.removeSuspension()
	l.deps.Log.Info("resumed", "why", why)
	l.converge(ctx, CauseChange)
}

func (l *Loop) removeSuspension() {
	if err := os.Remove(l.suspensionPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.deps.Log.Warn("suspension not removed", "error", err)
	}
}
