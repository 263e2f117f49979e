// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforcetest

import (
	"context"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Decider is a backend that can be asked what it would do, by its own means.
type Decider interface {
	Decide(subject enforce.SubjectID, op enforce.Operation) enforce.Decision
}

// Contract checks what every backend promises, in the order in which a host lives: nothing there, attach,
// publish, replace, withdraw, detach. newBackend returns a backend with a kernel that holds nothing of
// ours, and is called once; newAgain returns another one on the same kernel, as after a restart of the agent.
//
// It checks what a backend says of itself through Observe, not what the kernel does: that is for the
// conformance scenarios.
func Contract(t *testing.T, newBackend, newAgain func(t *testing.T) enforce.Backend) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := &contract{t: t, ctx: ctx, b: newBackend(t)}
	one, two := c.ruleset("/opt/contract/one"), c.ruleset("/opt/contract/two")

	c.drift("before anything", []*enforce.Ruleset{one}, enforce.DriftMissing)
	c.apply(enforce.StepAttach{Reason: "nothing there"})
	c.apply(enforce.StepPublish{Ruleset: one})
	c.clean("published", one)
	c.apply(enforce.StepPublish{Ruleset: one})
	c.apply(enforce.StepAttach{Reason: "again"})
	c.clean("published and attached again", one)
	c.drift("another ruleset is wanted", []*enforce.Ruleset{two}, enforce.DriftAltered)
	c.apply(enforce.StepPublish{Ruleset: two})
	c.clean("replaced", two)

	audited := two.Hold("contract")
	c.apply(enforce.StepPublish{Ruleset: audited})
	c.drift("held", []*enforce.Ruleset{audited}, enforce.DriftHeld)
	c.apply(enforce.StepPublish{Ruleset: two})

	c.b = newAgain(t)
	c.clean("after a restart", two)
	c.apply(enforce.StepAttach{Reason: "restart"})
	c.clean("attached after a restart", two)
	c.drift("nothing is wanted", nil, enforce.DriftExtra)

	c.apply(enforce.StepWithdraw{Subject: enforce.Host})
	c.apply(enforce.StepWithdraw{Subject: enforce.Host})
	c.absent("withdrawn")
	c.apply(enforce.StepPublish{Ruleset: one})
	c.clean("published once more", one)
	c.apply(enforce.StepDetach{})
	c.apply(enforce.StepDetach{})
	c.absent("detached")
	c.drift("detached", []*enforce.Ruleset{one}, enforce.DriftMissing)
}

type contract struct {
	t   *testing.T
	ctx context.Context
	b   enforce.Backend
}

// ruleset blocks one path that no test machine has.
func (c *contract) ruleset(path string) *enforce.Ruleset {
	p := &policies.Policy{ID: policies.ID{Kind: policies.KindHost, Name: "contract"}, Rules: []policies.Rule{{
		Class: policies.ClassFile, Action: policies.ActionBlock, Object: policies.Object{Kind: policies.ObjectPath, Value: path},
	}}}
	rs, _ := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Mode: enforce.ModeEnforce, Policies: []*policies.Policy{p}, Capabilities: c.b.Capabilities(),
	})
	if len(rs.Rules) != 1 {
		c.t.Fatalf("%s cannot block a path: %+v", c.b.Name(), c.b.Capabilities())
	}
	return rs
}

func (c *contract) apply(step enforce.Step) {
	c.t.Helper()
	if err := c.b.Apply(c.ctx, step); err != nil {
		c.t.Fatalf("%s: %v", step, err)
	}
}

func (c *contract) observe(want []*enforce.Ruleset) enforce.State {
	c.t.Helper()
	state, err := c.b.Observe(c.ctx, want)
	if err != nil {
		c.t.Fatalf("observe: %v", err)
	}
	if state.Backend != c.b.Name() {
		c.t.Errorf("state of %q from %q", state.Backend, c.b.Name())
	}
	return state
}

// clean: what is wanted is there, and Observe says so twice alike.
func (c *contract) clean(when string, want *enforce.Ruleset) {
	c.t.Helper()
	for range 2 {
		state := c.observe([]*enforce.Ruleset{want})
		for _, d := range enforce.Diff(enforce.DiffInput{Want: []*enforce.Ruleset{want}, Have: state}) {
			if d.Repairable() {
				c.t.Errorf("%s: %s: declared %s, observed %s", when, d.Kind, d.Declared, d.Observed)
			}
		}
	}
	if d, ok := c.b.(Decider); ok {
		op := enforce.Operation{Class: policies.ClassFile, Path: want.Rules[0].Objects[0], Read: true}
		if got := d.Decide(enforce.Host, op); got.Verdict != enforce.Deny || got.Rule != 0 {
			c.t.Errorf("%s: %s is not denied: %+v", when, op.Path, got)
		}
	}
}

// drift: among what Diff finds is this kind.
func (c *contract) drift(when string, want []*enforce.Ruleset, kind enforce.DriftKind) {
	c.t.Helper()
	found := enforce.Diff(enforce.DiffInput{Want: want, Have: c.observe(want)})
	for _, d := range found {
		if d.Kind == kind {
			return
		}
	}
	c.t.Errorf("%s: no drift of kind %s: %+v", when, kind, found)
}

// absent: the kernel holds no ruleset of the host.
func (c *contract) absent(when string) {
	c.t.Helper()
	if have, ok := c.observe(nil).Subjects[enforce.Host]; ok {
		c.t.Errorf("%s: the kernel still holds %+v", when, have)
	}
}
