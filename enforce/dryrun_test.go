// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

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
