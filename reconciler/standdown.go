// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/internal/statefile"
)

// Protector begins and ends the agent's protection of itself.
type Protector interface {
	Protect(ctx context.Context, on bool) error
}

const standDownMagic = "muster-stand-downs/1"

// keptNonces bounds what is remembered. The oldest go first: their windows are the longest over.
const keptNonces = 1024

// errNotProtected answers a stand-down where there is nothing to lift.
var errNotProtected = &control.Error{
	Name: "not-protected", Message: "this host does not protect itself, so that there is nothing to stand down from",
	Advice: "protectSelf: true in its configuration, and a restart, begins that",
}

// standDowns is what outlives the agent.
type standDowns struct {
	Used []string `json:"used"` // nonces, the newest last
	// Current is the one that may still be in force, as it was given, and Since when that was.
	Current *bundles.SignedStandDown `json:"current,omitempty"`
	Since   time.Time                `json:"since,omitzero"`
}

func (s *standDowns) used(nonce string) bool { return slices.Contains(s.Used, nonce) }

func (l *Loop) standDownPath() string { return filepath.Join(l.deps.StateDir, "stand-downs") }

// restoreStandDown takes up a stand-down that outlives the agent, if its signatures still hold, and protects the agent
// unless there is one.
func (l *Loop) restoreStandDown(ctx context.Context, now time.Time) {
	if l.deps.Protector == nil {
		return
	}
	var saved standDowns
	err := statefile.Load(l.standDownPath(), standDownMagic, &saved)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.deps.Log.Warn("stand-downs not readable; none is in force", "error", err)
		l.know.mark("StateLost", "which stand-downs were used was torn", now)
		saved = standDowns{}
	}
	l.know.standDowns = saved
	if saved.Current != nil {
		unused := func(string) bool { return false } // it is its own nonce that was used
		d, signers, err := saved.Current.Verify(l.own().Trust, l.settings.HostID, l.notBackwards(now), unused)
		switch {
		case err != nil:
			l.deps.Log.Info("the stand-down is over", "why", err)
			l.forgetStandDown()
		case now.Before(saved.Since):
			l.deps.Log.Warn("the stand-down is over: the clock says that it has not begun yet", "since", saved.Since)
			l.forgetStandDown()
		default:
			l.standingDown(d, signers, saved.Since, now)
		}
	}
	l.protect(ctx)
}

// notBackwards is the time that a window is held against: a clock that was set back opens none again.
func (l *Loop) notBackwards(now time.Time) time.Time { return later(now, l.own().seen.Floor) }

// forgetStandDown takes the window that is over from the disk: its end must not depend on the clock of the next start.
func (l *Loop) forgetStandDown() {
	l.know.standDowns.Current, l.know.standDowns.Since = nil, time.Time{}
	if err := statefile.Save(l.standDownPath(), standDownMagic, &l.know.standDowns); err != nil {
		l.deps.Log.Error("the end of the stand-down is not written down", "error", err)
	}
}

// protect makes the kernel protect the agent, or not, as things are now. Policies do not depend on it: should it fail, the
// loop goes on, and the next looks at the kernel try again and say so.
func (l *Loop) protect(ctx context.Context) {
	on := l.due.standDown.IsZero()
	if err := l.deps.Protector.Protect(ctx, on); err != nil && ctx.Err() == nil {
		l.deps.Log.Error("self-protection", "wanted", on, "error", err)
	}
}

// standingDown notes the window. What is left of it is never more than was signed, whatever becomes of the clock.
func (l *Loop) standingDown(d *bundles.StandDown, signers []string, since, now time.Time) {
	left := min(d.NotAfter.Sub(now), d.NotAfter.Sub(since))
	l.due.standDown = now.Add(max(left, 0))
	l.know.mark(fleet.ConditionStoodDown, fmt.Sprintf("until %s, signed by %s: %s", d.NotAfter.Format(time.RFC3339), strings.Join(signers, ", "), d.Reason), now)
	l.deps.Log.Warn("self-protection is lifted", "until", d.NotAfter, "host", d.Host, "signers", signers, "nonce", d.Nonce, "reason", d.Reason)
}

// StandDown lifts the agent's protection of itself for the window of a signed statement.
func (l *Loop) StandDown(ctx context.Context, file []byte) (*control.StandDown, error) {
	var out *control.StandDown
	var failed error
	err := l.ask(ctx, func(ctx context.Context) { out, failed = l.standDown(ctx, file) })
	return out, errors.Join(err, failed)
}

// standDown accepts or refuses. The nonce is on disk before anything is lifted.
func (l *Loop) standDown(ctx context.Context, file []byte) (*control.StandDown, error) {
	if l.deps.Protector == nil {
		return nil, errNotProtected
	}
	now := l.deps.Clock.Now()
	signed, err := bundles.ReadStandDown(file)
	if err != nil {
		return nil, err //nolint:wrapcheck // has its own words
	}
	d, signers, err := signed.Verify(l.own().Trust, l.settings.HostID, l.notBackwards(now), l.know.standDowns.used)
	if err != nil {
		l.deps.Log.Warn("a stand-down was refused", "error", err)
		return nil, err //nolint:wrapcheck // has its own words
	}
	next := standDowns{Used: append(slices.Clone(l.know.standDowns.Used), d.Nonce), Current: signed, Since: now.UTC()}
	next.Used = next.Used[max(0, len(next.Used)-keptNonces):]
	if err := statefile.Save(l.standDownPath(), standDownMagic, &next); err != nil {
		return nil, fmt.Errorf("stand-down: %w", err)
	}
	l.know.standDowns = next
	l.standingDown(d, signers, now, now)
	l.protect(ctx)
	l.converge(ctx, CauseChange)
	return &control.StandDown{Until: d.NotAfter, Signers: signers, Reason: d.Reason}, nil
}

// standDownIsOver ends the window: the agent protects itself again, at once.
func (l *Loop) standDownIsOver(ctx context.Context) {
	l.due.standDown = time.Time{}
	delete(l.know.marked, fleet.ConditionStoodDown)
	l.deps.Log.Info("the stand-down is over")
	l.forgetStandDown()
	l.protect(ctx)
	l.converge(ctx, CauseChange)
}

// selfProtection says of the agent's protection of itself what the kernel told last.
func (l *Loop) selfProtection(now time.Time) {
	if l.deps.Protector == nil {
		return
	}
	l.resisted(now)
	why := l.know.state.SelfFault
	if l.settings.Config.Mode == enforce.ModeOff {
		why = "with mode: off nothing is attached, and nothing keeps anybody from what is the agent's"
	}
	if why == "" || !l.due.standDown.IsZero() {
		delete(l.know.marked, fleet.ConditionExposed)
		return
	}
	l.know.mark(fleet.ConditionExposed, clip("the agent does not protect itself as protectSelf asks: "+why, maxMessage), now)
}

// resisted says that somebody tried, once for each look at the kernel. The counter outlives the agent: what it says at the
// first look was told by the one before.
func (l *Loop) resisted(now time.Time) {
	n, before := l.know.state.Resisted, l.know.resisted
	l.know.resisted = &n
	if before == nil || n <= *before {
		return
	}
	l.know.resistedHere += n - *before
	l.deps.Log.Warn("acts against the agent were denied", "times", n-*before)
	l.know.mark(fleet.ConditionResisted, fmt.Sprintf("%d acts against the agent or what is its own were denied since it started", l.know.resistedHere), now)
}
