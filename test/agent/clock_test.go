// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/servers"
	"github.com/muster-fleet/muster/test/vm"
)

const year = 365 * 24 * time.Hour

// gate is a Git server that can keep a poll waiting, or fail.
type gate struct {
	backend http.Handler
	asked   atomic.Int64
	broken  atomic.Bool

	mu   sync.Mutex
	hold chan chan struct{} // who comes sends what it waits for
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked.Add(1)
	if g.broken.Load() {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	g.mu.Lock()
	hold := g.hold
	g.hold = nil
	g.mu.Unlock()
	if hold != nil {
		wait := make(chan struct{})
		hold <- wait
		<-wait
	}
	g.backend.ServeHTTP(w, r)
}

// during calls fn while a poll waits for its answer.
func (g *gate) during(t *testing.T, fn func()) {
	t.Helper()
	hold := make(chan chan struct{})
	g.mu.Lock()
	g.hold = hold
	g.mu.Unlock()
	select {
	case wait := <-hold:
		defer close(wait)
		fn()
	case <-time.After(patience):
		t.Fatal("nobody polls")
	}
}

// timed is a lab whose clock is set.
type timed struct {
	*lab
	gate *gate
}

func newTimed(t *testing.T) *timed {
	t.Helper()
	l := newLab(t)
	l.fresh = true
	l.must(os.WriteFile(l.dir+"/trust.yaml", l.trustText(), 0o600))
	backend, err := servers.Git(l.dir, "")
	l.must(err)
	x := &timed{lab: l, gate: &gate{backend: backend}}
	server := httptest.NewServer(x.gate)
	t.Cleanup(server.Close)
	text, err := os.ReadFile(l.config())
	l.must(err)
	l.must(os.WriteFile(l.config(), []byte(strings.Replace(string(text), "file://"+l.repo(), server.URL+"/policy.git", 1)), 0o600))
	t.Cleanup(func() { x.set(0) })
	return x
}

// set puts the machine's clock so far beside the truth, which goes by the clock that nobody sets.
func (x *timed) set(off time.Duration) {
	x.t.Helper()
	at := x.truth().Add(off)
	if out, err := exec.Command("date", "-u", "-s", fmt.Sprintf("@%d", at.Unix())).CombinedOutput(); err != nil {
		x.t.Fatalf("date: %v: %s", err, out)
	}
}

// goesOn waits for more polls than were due when the clock was set.
func (x *timed) goesOn() {
	x.t.Helper()
	until, begun := x.gate.asked.Load()+4, time.Now()
	x.wait("polls after a leap", func() bool { return x.gate.asked.Load() >= until })
	x.t.Logf("four polls in %v", time.Since(begun).Round(time.Millisecond))
}

// says waits until the report has exactly these of the conditions that a clock can bring about.
func (x *timed) says(want ...string) {
	x.t.Helper()
	x.wait(fmt.Sprintf("conditions %q", want), func() bool {
		status, err := x.client.Status(x.t.Context())
		if err != nil {
			return false
		}
		got := []string{}
		for _, c := range status.Report.Conditions {
			if slices.Contains([]string{"ClockBackwards", "FutureIssued", "Stale", "StateLost"}, c.Type) {
				got = append(got, c.Type)
			}
		}
		slices.Sort(got)
		return slices.Equal(slices.Compact(got), want)
	})
}

// next publishes a release that also blocks the file, and waits until the agent's own polls bring it into force.
func (x *timed) next(secret, file string) {
	x.t.Helper()
	x.publishNext(blocking("keep-out", secret, file))
	begun := time.Now()
	x.wait("the next release", func() bool { return try(file) != nil })
	x.t.Logf("the next release was enforced after %v", time.Since(begun).Round(time.Millisecond))
	x.denied(secret)
}

// TestLabClockLeaps sets the clock years ahead and years back, before the release was issued, during a poll, during
// a back-off and over a kill: what is enforced stays, the agent goes on by itself, says so, and remembers nothing
// wrong.
func TestLabClockLeaps(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	x := newTimed(t)
	secret := x.file("secret")
	x.publishNext(blocking("keep-out", secret))
	x.run(agentOne)
	x.settle()
	x.denied(secret)
	x.says()

	x.gate.during(t, func() { x.set(5 * year) })
	x.denied(secret)
	x.goesOn()
	x.says("Stale") // its word of freshness has run out, as far as anybody can tell
	x.next(secret, x.file("ahead"))
	status, err := x.client.Status(t.Context())
	x.must(err)
	if status.Report.Time.Before(x.began.Round(0).Add(4 * year)) {
		t.Errorf("the report is of %v: it hides what its clock shows", status.Report.Time)
	}

	x.gate.during(t, func() { x.set(0) })
	x.denied(secret)
	x.goesOn()
	x.says("ClockBackwards") // and fresh again: the time that the clock leapt to is no floor
	x.next(secret, x.file("back"))
	x.says()
	x.timely(secret)

	x.set(-10 * year)
	x.denied(secret)
	x.goesOn()
	x.says("ClockBackwards", "FutureIssued")
	x.next(secret, x.file("before"))
	x.set(0)
	x.says()

	x.backOff(secret)
	x.killed(secret)
}

// timely holds the time of a denial's event against the truth.
func (x *timed) timely(secret string) {
	x.t.Helper()
	x.denied(secret)
	records := x.records()
	last := records[len(records)-1]
	at, err := time.Parse(time.RFC3339Nano, last.UpdatedTime)
	x.must(err)
	if off := x.truth().Sub(at).Abs(); off > time.Hour {
		x.t.Errorf("an event of now is told as of %v", at)
	}
}

// backOff sets the clock while the agent waits before it tries again.
func (x *timed) backOff(secret string) {
	x.t.Helper()
	for name, off := range []time.Duration{2 * year, -2 * year} {
		x.gate.broken.Store(true)
		x.wait("the source's trouble", func() bool {
			status, err := x.client.Status(x.t.Context())
			return err == nil && slices.ContainsFunc(status.Report.Conditions, func(c fleet.Condition) bool { return c.Type == "Unreachable" })
		})
		x.set(off)
		x.denied(secret)
		x.gate.broken.Store(false)
		x.next(secret, x.file(fmt.Sprint("back-off-", name)))
		x.set(0)
	}
}

// killed starts the agent again under a clock that is years back; what it remembers must hold.
func (x *timed) killed(secret string) {
	x.t.Helper()
	x.end(syscall.SIGKILL)
	x.set(-10 * year)
	x.run(agentOne)
	x.state(fleet.StateEnforced)
	x.says("ClockBackwards", "FutureIssued")
	x.denied(secret)
	x.publish(blocking("keep-out", x.file("rolled-back")), []string{"alice"}, 1, true)
	result, err := x.client.Sync(x.t.Context(), control.SyncRequest{Wait: true})
	x.must(err)
	if result.Outcome != control.OutcomeRefused || result.Problem.Name != "rollback" {
		x.t.Errorf("an older release under an older clock: %s %+v", result.Outcome, result.Problem)
	}
	x.set(0)
	x.next(secret, x.file("at-last"))
	x.says()
	x.state(fleet.StateEnforced)
}
