// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
)

// shield remembers whether the agent protects itself.
type shield struct{ on, broken atomic.Bool }

func (s *shield) Protect(_ context.Context, on bool) error {
	if s.broken.Load() {
		return errPretended
	}
	s.on.Store(on)
	return nil
}

// standDown is a file signed by alice for a window that begins now.
func (w *world) standDown(host string, begin time.Time, lasting time.Duration, by string) []byte {
	w.t.Helper()
	s, err := bundles.NewStandDown(w.trust(), host, begin, lasting, "upgrade")
	w.must(err)
	if by == "mallory" {
		sig, err := w.keys[by].Sign(w.t.Context(), s.Document)
		w.must(err)
		s.Signatures["alice"] = sig
	} else {
		w.must(s.Sign(w.t.Context(), w.trust(), w.keys[by]))
	}
	data, err := json.Marshal(s)
	w.must(err)
	return data
}

func (w *world) refusesStandDown(name string, file []byte) {
	w.t.Helper()
	if _, err := w.loop.StandDown(w.t.Context(), file); bundles.RefusalName(err) != name {
		w.t.Errorf("a stand-down: %v, want %s", err, name)
	}
	if !w.shield.on.Load() {
		w.t.Errorf("%s: refused, and stood down", name)
	}
}

func (w *world) stoodDown() bool { return w.condition(fleet.ConditionStoodDown) != "" }

// condition is what the report says of that type.
func (w *world) condition(kind string) string {
	for _, c := range w.status().Report.Conditions {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}

// TestStandDown lifts self-protection for a window that outlives a restart, and for no other statement.
func TestStandDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shield = &shield{}
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.start()
	w.sync()
	if !w.shield.on.Load() || w.stoodDown() {
		t.Fatal("the agent does not protect itself")
	}
	now := time.Now()
	w.refusesStandDown("too-few-signers", w.standDown("web-1", now, time.Hour, "mallory"))
	w.refusesStandDown("wrong-host", w.standDown("web-2", now, time.Hour, "alice"))
	w.refusesStandDown("expired", w.standDown("web-1", now.Add(-2*time.Hour), time.Hour, "alice"))
	w.refusesStandDown("not-yet-valid", w.standDown("web-1", now.Add(time.Hour), time.Hour, "alice"))
	w.refusesStandDown("malformed", []byte("{"))

	// What cannot be remembered is not accepted: it could be used again.
	file := w.standDown("web-1", now, 6*time.Second, "alice")
	w.must(os.Mkdir(filepath.Join(w.cfg.StateDir, "stand-downs"), 0o700))
	if _, err := w.loop.StandDown(t.Context(), file); err == nil || !w.shield.on.Load() {
		t.Errorf("without a state: %v", err)
	}
	w.must(os.Remove(filepath.Join(w.cfg.StateDir, "stand-downs")))

	s, err := w.loop.StandDown(t.Context(), file)
	w.must(err)
	if w.shield.on.Load() || !w.stoodDown() || s.Reason != "upgrade" || !slices.Equal(s.Signers, []string{"alice"}) {
		t.Errorf("stood down: %+v", s)
	}
	if w.kernel.hostRules() != 1 {
		t.Error("a stand-down takes rules away")
	}
	w.halt()
	w.start()
	if !w.stoodDown() || w.shield.on.Load() {
		t.Error("a restart ends the window")
	}
	w.await("the end of the window", func() bool { return !w.stoodDown() })
	if !w.shield.on.Load() {
		t.Error("over, and not protected")
	}
	every := w.standDown(bundles.AllHosts, time.Now(), time.Hour, "bob")
	if _, err := w.loop.StandDown(t.Context(), every); err != nil {
		t.Error(err)
	}
	w.halt()
	w.cfg.StateDir = filepath.Join(w.dir, "another-host")
	w.must(os.MkdirAll(w.cfg.StateDir, 0o700))
	w.start()
	if w.stoodDown() || !w.shield.on.Load() {
		t.Error("a host without that state stood down")
	}
	_, err = w.loop.StandDown(t.Context(), every)
	w.must(err)
	_, err = w.loop.StandDown(t.Context(), every)
	if bundles.RefusalName(err) != "replayed" {
		t.Errorf("once more: %v", err)
	}
}

// A window that somebody wrote into the state by hand is none: its signatures are checked again.
func TestStandDownForgedState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shield = &shield{}
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.start()
	w.sync()
	_, err := w.loop.StandDown(t.Context(), w.standDown("web-1", time.Now(), time.Hour, "alice"))
	w.must(err)
	w.halt()
	w.pems["alice"], w.keys["alice"] = w.pems["mallory"], w.keys["mallory"]
	w.start()
	if w.stoodDown() || !w.shield.on.Load() {
		t.Error("a window of a signer that is trusted no more")
	}
}

// Where nothing is protected there is nothing to lift.
func TestStandDownUnprotected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.start()
	w.sync()
	_, err := w.loop.StandDown(t.Context(), w.standDown("web-1", time.Now(), time.Hour, "alice"))
	if refused, ok := errors.AsType[*control.Error](err); !ok || refused.Name != "not-protected" {
		t.Errorf("%v", err)
	}
}

// A clock that is set back opens no window again that is over, or that has not been accepted yet.
func TestStandDownClockSetBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shield = &shield{}
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.start()
	w.sync()
	_, err := w.loop.StandDown(t.Context(), w.standDown("web-1", time.Now(), 2*time.Second, "alice"))
	w.must(err)
	w.await("the end of the window", func() bool { return !w.stoodDown() })
	w.halt()
	w.early = time.Second // the clock shows a time within the window
	w.start()
	if w.stoodDown() || !w.shield.on.Load() {
		t.Error("a window that was over is open again")
	}
	w.halt()

	w.early = 0
	w.start()
	_, err = w.loop.StandDown(t.Context(), w.standDown("web-1", time.Now().Add(-30*time.Minute), time.Hour, "alice"))
	w.must(err)
	w.halt()
	w.early = 10 * time.Minute // within the window, before the agent accepted it
	w.start()
	if w.stoodDown() || !w.shield.on.Load() {
		t.Error("a window is open before it was accepted")
	}
	w.halt()
	w.early = 0
	w.start()
	if w.stoodDown() {
		t.Error("a window that was over is open again when the clock is right")
	}

	// What the agent has seen of the time is a floor for a new statement, too.
	w.halt()
	w.early = 24 * time.Hour
	w.start()
	w.refusesStandDown("expired", w.standDown("web-1", time.Now().Add(-24*time.Hour), time.Hour, "alice"))
}

// Policies and the way out do not depend on self-protection, and a host says when it lacks it.
func TestExposed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shield = &shield{}
	w.shield.broken.Store(true)
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.kernel.setSelf("the agent's unit is not found", 7)
	w.start()
	w.sync()
	if w.kernel.hostRules() != 1 {
		t.Error("no policy without self-protection")
	}
	if got := w.condition(fleet.ConditionExposed); !strings.Contains(got, "unit is not found") {
		t.Errorf("exposed, and it says %q", got)
	}
	// What an earlier agent told of is not told again.
	if got := w.condition(fleet.ConditionResisted); got != "" {
		t.Errorf("before the start: %s", got)
	}
	w.kernel.setSelf("", 9)
	w.await("two acts", func() bool { return strings.HasPrefix(w.condition(fleet.ConditionResisted), "2 acts") })
	w.await("an end", func() bool { return w.condition(fleet.ConditionExposed) == "" })
	if _, err := w.loop.StandDown(t.Context(), w.standDown("web-1", time.Now(), time.Hour, "alice")); err != nil || !w.stoodDown() {
		t.Errorf("a stand-down where the kernel refuses: %v", err)
	}
	w.halt()
	w.cfg.StateDir = filepath.Join(w.dir, "another-host")
	w.must(os.MkdirAll(w.cfg.StateDir, 0o700))
	w.cfg.Mode = enforce.ModeOff
	w.start()
	w.await("that nothing protects it", func() bool { return strings.Contains(w.condition(fleet.ConditionExposed), "mode: off") })
}
