// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

// TestDryRunIsTrue is what a soak rests on: a policy in audit would have denied an operation exactly when the same
// policies, compiled with that one enforced, deny what they permit now.
func TestDryRunIsTrue(t *testing.T) {
	t.Parallel()
	seeds := uint64(600)
	if testing.Short() {
		seeds = 60
	}
	told := map[string]int{}
	for seed := range seeds {
		g := enforcetest.NewGenerator(seed)
		in := g.Input(1 + int(seed%23))
		if in.Mode != enforce.ModeEnforce {
			continue // whoever is in audit then is no dry run: nothing is enforced
		}
		rs, _ := enforce.Compile(in)
		enforced := promoted(in)
		for range 200 {
			op, second := g.Operation(rs), g.Operation(rs)
			d, both := rs.Decide(op), rs.DecideAll(op, second)
			told["permitted"] += int(1 - d.Verdict)
			for id, other := range enforced {
				want := d.Verdict == enforce.Permit && other.Decide(op).Verdict == enforce.Deny
				if got := wouldDenyBy(rs, d, id, told); got != want {
					t.Fatalf("seed %d: %s would deny %+v: told %t, enforced %t\n%s", seed, id.Name, op, got, want, list(rs))
				}
				want = both.Verdict == enforce.Permit && other.DecideAll(op, second).Verdict == enforce.Deny
				if got := wouldDenyBy(rs, both, id, told); got != want {
					t.Fatalf("seed %d: %s would deny %+v and %+v: told %t, enforced %t\n%s", seed, id.Name, op, second, got, want, list(rs))
				}
			}
		}
	}
	for _, kind := range []string{"rule", "posture", "unbuildable", "permitted"} {
		if told[kind] < 20 {
			t.Errorf("%d times %s: the generator is lopsided: %v", told[kind], kind, told)
		}
	}
	t.Logf("told: %v", told)
}

// promoted are, for each policy in audit, the same policies with that one enforced.
func promoted(in enforce.CompileInput) map[policies.ID]*enforce.Ruleset {
	list := in.Policies
	found := map[policies.ID]*enforce.Ruleset{}
	for i, p := range list {
		if p.Labels[enforce.ModeLabel] != string(enforce.ModeAudit) {
			continue
		}
		changed := *p
		changed.Labels = maps.Clone(p.Labels)
		changed.Labels[enforce.ModeLabel] = string(enforce.ModeEnforce)
		in.Policies = slices.Clone(list)
		in.Policies[i] = &changed
		found[p.ID], _ = enforce.Compile(in)
	}
	return found
}

func wouldDenyBy(rs *enforce.Ruleset, d enforce.Decision, id policies.ID, told map[string]int) bool {
	for _, run := range d.DryRuns {
		if rs.Rules[run.Rule].Policy != id {
			continue
		}
		switch {
		case run.Posture:
			told["posture"]++
		case run.Unbuildable:
			told["unbuildable"]++
		default:
			told["rule"]++
		}
		return true
	}
	return false
}

// TestPolicyVersion: a soak is of what a policy asks for.
func TestPolicyVersion(t *testing.T) {
	t.Parallel()
	base := func() *policies.Policy {
		return &policies.Policy{
			ID: policies.ID{Kind: policies.KindHost, Name: "p"},
			Rules: []policies.Rule{{
				Class: file, Action: policies.ActionBlock, Object: policies.Object{Kind: policies.ObjectPath, Value: "/f"},
				Sources: []policies.Source{{Path: "/bin/a"}}, Position: policies.Position{File: "p.yaml", Line: 3},
			}},
		}
	}
	version := enforce.PolicyVersion(base())
	for what, c := range map[string]struct {
		change func(*policies.Policy)
		same   bool
	}{
		"its mode":      {func(p *policies.Policy) { p.Labels = map[string]string{enforce.ModeLabel: "audit"} }, true},
		"its place":     {func(p *policies.Policy) { p.Rules[0].Position.Line = 7 }, true},
		"an object":     {func(p *policies.Policy) { p.Rules[0].Object.Value = "/g" }, false},
		"a source":      {func(p *policies.Policy) { p.Rules[0].Sources[0].Path = "/bin/b" }, false},
		"an action":     {func(p *policies.Policy) { p.Rules[0].Action = policies.ActionAllow }, false},
		"another rule":  {func(p *policies.Policy) { p.Rules = append(p.Rules, p.Rules[0]) }, false},
		"another class": {func(p *policies.Policy) { p.Rules[0].Class = process }, false},
	} {
		p := base()
		c.change(p)
		if got := enforce.PolicyVersion(p) == version; got != c.same {
			t.Errorf("%s: the same version: %t, want %t", what, got, c.same)
		}
	}
}
