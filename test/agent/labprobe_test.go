// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

// These take minutes on an emulated machine and want it for themselves:
//
//	GOFLAGS=-tags=measure KERNEL=6.12 go test ./test/agent -run TestInVM -v -timeout 30m

package agent

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/vm"
)

// prober tries two files a thousand times a second: one that every ruleset of the test blocks, and one that
// none does.
type prober struct {
	never, always string
	tries         atomic.Int64
	leaked        atomic.Int64 // never was opened
	refused       atomic.Int64 // always was not
	other         atomic.Int64 // an error that no policy makes
}

// run makes up for ticks that a busy machine lost, so that the mean rate holds.
func (p *prober) run(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := time.Since(began).Milliseconds(); p.tries.Load() < due; {
			p.try()
		}
	}
}

func (p *prober) try() {
	p.tries.Add(1)
	switch err := try(p.never); {
	case err == nil:
		p.leaked.Add(1)
	case !errors.Is(err, unix.EACCES):
		p.other.Add(1)
	}
	if err := try(p.always); err != nil {
		p.refused.Add(1)
	}
}

// TestLabNoWrongOperation is the third promise: ten kills, ten swaps between two rulesets and two changes of
// the agent's binary, under a probe at 1 kHz.
func TestLabNoWrongOperation(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	l := newLab(t)
	never, always, a, b := l.file("never"), l.file("always"), l.file("a"), l.file("b")
	rulesets := []map[string][]byte{blocking("ruleset-a", never, a), blocking("ruleset-b", never, b)}
	l.publishNext(rulesets[0])
	l.run(agentOne)
	l.settle()
	p := &prober{never: never, always: always}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	began := time.Now()
	go func() { defer close(done); p.run(ctx) }()
	for i := range 10 {
		l.publishNext(rulesets[(i+1)%2])
		// Killed while it swaps, as near as a test can aim: the sync is under way.
		if _, err := l.client.Sync(ctx, control.SyncRequest{}); err != nil {
			t.Fatal(err)
		}
		p.await(t, int64(i*70))
		l.end(syscall.SIGKILL)
		// The sixth start is the upgrade, in the middle of a swap like all others.
		l.run([]string{agentOne, agentTwo}[i/5])
		l.settle()
		l.denied([]string{b, a}[i%2])
		l.allowed([]string{a, b}[i%2])
		t.Logf("%.0f s: kill and swap %d, %d tries", time.Since(began).Seconds(), i+1, p.tries.Load())
	}
	// And back, after an orderly stop.
	l.end(syscall.SIGTERM)
	l.run(agentOne)
	l.settle()
	l.state(fleet.StateEnforced)
	stop()
	<-done
	tries, took := p.tries.Load(), time.Since(began)
	t.Logf("probe through 10 kills, 10 swaps and 2 changes of the binary: %d tries of each file in %.0f s (%.0f a second), %d leaked, %d wrongly refused, %d other errors",
		tries, took.Seconds(), float64(tries)/took.Seconds(), p.leaked.Load(), p.refused.Load(), p.other.Load())
	if p.leaked.Load()+p.refused.Load()+p.other.Load() > 0 {
		t.Error("operations went wrong")
	}
	if float64(tries) < 900*took.Seconds() {
		t.Error("the probe did not keep its rate")
	}
}

// await lets n more tries happen, so that each kill meets another moment of the swap.
func (p *prober) await(t *testing.T, n int64) {
	t.Helper()
	until := p.tries.Load() + n
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.tries.Load() < until {
		select {
		case <-t.Context().Done():
			t.Fatal("the probe stands still")
		case <-tick.C:
		}
	}
}

// TestLabPushToEnforced is the fourth: how long from the end of a git push to the kernel, polling every second.
func TestLabPushToEnforced(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	l := newLab(t)
	a, b := l.file("a"), l.file("b")
	l.publishNext(blocking("ruleset-a", a))
	l.run(agentOne)
	l.settle()
	var took []time.Duration
	for i := range 20 {
		now := []string{b, a}[i%2]
		l.publishNext(blocking("ruleset", now))
		pushed := time.Now()
		l.wait("enforced", func() bool { return errors.Is(try(now), unix.EACCES) })
		took = append(took, time.Since(pushed))
	}
	slices.Sort(took)
	t.Logf("git push to enforced, poll interval 1 s, 20 changes: median %v, worst %v", took[10].Round(time.Millisecond), took[19].Round(time.Millisecond))
	if took[10] > 10*time.Second {
		t.Error("far above the poll interval")
	}
}
