// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// The tests below run inside the lab's kernels.
func TestInVM(t *testing.T) { vm.TestPackage(t, vm.Options{LSM: vm.BPF}) }

// guard is a backend with its events, for one test.
type guard struct {
	*Backend
	mu     sync.Mutex
	events []enforce.Event
}

func newGuard(t *testing.T) *guard {
	t.Helper()
	return startGuard(t, "/sys/fs/bpf/muster-test")
}

func startGuard(t *testing.T, root string) *guard {
	t.Helper()
	b, err := New(Config{Root: root, RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{Backend: b}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Events(ctx, g.take) }()
	t.Cleanup(func() {
		if err := b.Apply(context.Background(), enforce.StepDetach{}); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g.apply(t, enforce.StepAttach{Reason: "test"})
	return g
}

func (g *guard) take(e enforce.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
}

func (g *guard) apply(t *testing.T, step enforce.Step) {
	t.Helper()
	err := g.Apply(t.Context(), step)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%T: %+v", step, refused)
	}
	if err != nil {
		t.Fatalf("%T: %v", step, err)
	}
}

// seen are the events so far, as short lines.
func (g *guard) seen(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := g.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var lines []string
	for _, e := range g.events {
		lines = append(lines, eventLine(e))
	}
	g.events = nil
	return lines
}

func eventLine(e enforce.Event) string {
	s := fmt.Sprintf("%s %s", e.Operation, e.Resource)
	if e.ResourceTo != "" {
		s += " " + e.ResourceTo
	}
	switch {
	case e.Verdict == enforce.Deny:
		s += " denied"
	case e.WouldDeny:
		s += " would-deny"
	}
	if e.Rule != nil {
		s += " by " + e.Rule.Policy.Name
	}
	if e.Posture {
		s += " by posture"
	}
	for _, a := range e.Audits {
		s += " audited-by " + a.Policy.Name
	}
	return s
}

// rules makes a host ruleset of single-rule policies p0, p1, ….
func rules(mode enforce.Mode, posture enforce.Posture, list ...enforce.Rule) *enforce.Ruleset {
	rs := &enforce.Ruleset{Subject: enforce.Host, Mode: mode, Rules: list}
	rs.Postures.File = posture
	for i := range rs.Rules {
		rs.Rules[i].Policy = policies.ID{Kind: policies.KindHost, Name: fmt.Sprintf("p%05d", i)}
	}
	return rs
}

func rule(class policies.Class, action policies.Action, kind policies.ObjectKind, value string, sources ...string) enforce.Rule {
	return enforce.Rule{
		Rule:    policies.Rule{Class: class, Action: action, Object: policies.Object{Kind: kind, Value: value}},
		Objects: []string{value}, Sources: sources,
	}
}

func block(value string, sources ...string) enforce.Rule {
	return rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPath, value, sources...)
}

func want(t testing.TB, got []string, expected ...string) {
	t.Helper()
	if !slices.Equal(got, expected) {
		t.Errorf("got  %q\nwant %q", got, expected)
	}
}

func TestExactBlock(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	dir := t.TempDir()
	write(t, dir+"/secret", "x", 0o644)
	write(t, dir+"/other", "x", 0o644)
	want(t, try(t, "read "+dir+"/secret"), "ok")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(dir+"/secret"))})
	want(t, try(t, "read "+dir+"/secret", "read "+dir+"/other", "write "+dir+"/secret"), "EACCES", "ok", "EACCES")
	want(t, g.seen(t), "open "+dir+"/secret denied by p00000", "open "+dir+"/secret denied by p00000")
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	want(t, try(t, "read "+dir+"/secret"), "ok")
}
