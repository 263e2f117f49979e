// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"sync"
	"testing"

	"github.com/muster-fleet/muster/enforce"
)

// guard is a backend with its events, for one test.
type guard struct {
	*Backend
	stop   func() error
	mu     sync.Mutex
	events []enforce.Event
}

// standing is the guard that newGuard lends to one test after the other. To attach takes longer on an emulated
// processor than most tests do.
var standing *guard

// newGuard lends the programs, attached, with a ruleset that names nothing there is. A test that replaces, damages or loses programs or maps
// takes startGuard instead.
func newGuard(t *testing.T) *guard {
	t.Helper()
	if standing == nil {
		standing = attachGuard(t, testRoot)
	}
	g := standing
	g.taken(t)
	t.Cleanup(func() {
		if t.Failed() || g.clear() != nil {
			alone(t)
		}
	})
	return g
}

// startGuard attaches programs of the test's own, beside which there are no others.
func startGuard(t *testing.T, root string) *guard {
	t.Helper()
	alone(t)
	g := attachGuard(t, root)
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// alone takes away the programs that the tests before this one left.
func alone(t *testing.T) {
	t.Helper()
	if standing == nil {
		return
	}
	g := standing
	standing = nil
	if err := g.stop(); err != nil {
		t.Error(err)
	}
}

func attachGuard(t *testing.T, root string) *guard {
	t.Helper()
	b, err := New(Config{Root: root, RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{Backend: b}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Events(ctx, g.take) }()
	g.stop = sync.OnceValue(func() error {
		defer cancel()
		if err := b.Apply(context.Background(), enforce.StepDetach{}); err != nil {
			return err
		}
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if t.Failed() {
			_ = g.stop() // what it would say is nothing to what the test said
		}
	})
	g.apply(t, enforce.StepAttach{Reason: "test"})
	return g
}

// clear leaves a ruleset that names nothing there is, and no mark. It has a rule on a file, because programs that are
// attached on demand would else go, and take their time to come back in the next test.
func (g *guard) clear() error {
	return g.Apply(context.Background(), enforce.StepPublish{
		Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block("/nothing/there")),
	})
}

func (g *guard) take(e enforce.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
}
