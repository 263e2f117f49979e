// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// expiring is a context that ends when it has been asked a number of times.
type expiring struct {
	context.Context
	left atomic.Int32
}

func (e *expiring) Err() error {
	if e.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// cut applies a step that has to end when its context has been asked so often.
func (g *guard) cut(t *testing.T, step enforce.Step, asked int32) {
	t.Helper()
	ctx := &expiring{Context: t.Context()}
	ctx.left.Store(asked)
	if err := g.Apply(ctx, step); !errors.Is(err, context.Canceled) {
		t.Errorf("%T, ended after %d looks: %v", step, asked, err)
	}
}

// linksHere are all links of this kernel.
func linksHere(t *testing.T) int {
	t.Helper()
	n := 0
	all := new(link.Iterator)
	defer all.Close()
	for all.Next() {
		n++
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

func pinsIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestAttachEnds: whoever ends an agent need not wait until it has attached its programs. Nothing is left behind of what it
// began, and what was in force stays in force.
func TestAttachEnds(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	alone(t)
	before := linksHere(t)
	b, err := New(Config{Root: testRoot + "-ends", RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{Backend: b}
	t.Cleanup(func() {
		if err := g.Apply(context.Background(), enforce.StepDetach{}); err != nil {
			t.Error(err)
		}
	})
	attach := enforce.StepAttach{Reason: "test"}
	// While programs are loaded, and while they are attached.
	for _, asked := range []int32{1, 4, 11, 13, 16} {
		g.cut(t, attach, asked)
		want(t, pinsIn(t, g.pins.dir))
		if n := linksHere(t); n != before {
			t.Errorf("%d links are left", n-before)
		}
	}
	g.apply(t, attach)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))})
	pins, links := pinsIn(t, g.pins.dir), linksHere(t)
	more := rule(policies.ClassNetwork, policies.ActionBlock, policies.ObjectProtocol, "raw")
	publish := enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, more)}
	for _, asked := range []int32{2, 5, 9} {
		g.cut(t, publish, asked)
		want(t, pinsIn(t, g.pins.dir), pins...)
		want(t, try(t, "read "+d+"/f"), "EACCES")
	}
	// With a pin gone all programs are replaced: one loading is attached beside the other.
	if err := os.Remove(g.pins.linkPath(bpf.MusterProgLabelFork)); err != nil {
		t.Fatal(err)
	}
	pins = pinsIn(t, g.pins.dir)
	for _, asked := range []int32{3, 30, 50, 60} {
		g.cut(t, attach, asked)
		want(t, pinsIn(t, g.pins.dir), pins...)
		want(t, try(t, "read "+d+"/f"), "EACCES")
		if n := linksHere(t); n != links {
			t.Errorf("%d links where there were %d", n, links)
		}
	}
	g.apply(t, attach)
	want(t, try(t, "read "+d+"/f"), "EACCES")
}
