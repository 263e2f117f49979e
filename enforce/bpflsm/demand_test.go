// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

// TestDemandAgrees: an agent that knows the ruleset and one that finds its image in the kernel attach the same programs.
func TestDemandAgrees(t *testing.T) {
	t.Parallel()
	sets := map[string]*enforce.Ruleset{
		"nothing":      rules(enforce.ModeEnforce, enforce.PostureAudit),
		"network":      rules(enforce.ModeEnforce, enforce.PostureAudit, rule(policies.ClassNetwork, policies.ActionBlock, policies.ObjectProtocol, "raw")),
		"capabilities": rules(enforce.ModeEnforce, enforce.PostureAudit, rule(policies.ClassCapabilities, policies.ActionBlock, policies.ObjectCapability, "net_raw")),
		"preset":       rules(enforce.ModeEnforce, enforce.PostureAudit, rule(policies.ClassPreset, policies.ActionBlock, policies.ObjectPreset, "protectEnv")),
		"calls":        rules(enforce.ModeEnforce, enforce.PostureAudit, onCalls("/a/", "mkdir")),
		"source":       rules(enforce.ModeEnforce, enforce.PostureAudit, rule(policies.ClassNetwork, policies.ActionBlock, policies.ObjectProtocol, "raw", "/usr/bin/ping")),
	}
	for _, class := range []policies.Class{
		policies.ClassProcess, policies.ClassFile, policies.ClassNetwork, policies.ClassCapabilities, policies.ClassDNS,
	} {
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit)
		rs.Visible = []policies.Class{class}
		sets["visible "+string(class)] = rs
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		sets[fmt.Sprint("random ", seed)] = randomRuleset(r)
		sets[fmt.Sprint("generated ", seed)] = enforcetest.NewGenerator(seed).Ruleset(1 + int(seed)/4)
	}
	for name, rs := range sets {
		image, err := render(rs, testKey)
		if err != nil {
			t.Fatal(err)
		}
		told, found := demandOf([]*enforce.Ruleset{rs}), demandOfImage(view[bpf.MusterImageHeader](image.Bytes, 0, 0))
		if told != found {
			t.Errorf("%s: the ruleset asks for %b, its image for %b", name, told, found)
		}
		if (told == 0) != (name == "nothing") {
			t.Errorf("%s: asks for %b", name, told)
		}
	}
}

// TestEveryDemand: what is in demand is asked for by some class, and every program on demand by some demand.
func TestEveryDemand(t *testing.T) {
	t.Parallel()
	var asked, used demand
	for _, flags := range demandFlags {
		for _, d := range flags {
			asked |= d
		}
	}
	for _, p := range attached {
		used |= p.demand
	}
	asked |= (&Backend{self: &Self{}}).constant()
	if asked != everyDemand || used != everyDemand {
		t.Errorf("asked for %b, used %b, of %b", asked, used, everyDemand)
	}
	if !slices.ContainsFunc(attached, func(p program) bool { return p.name == bpf.MusterProgExecCheck && p.demand == 0 }) {
		t.Error("the programs without which nobody is labelled have to be there always")
	}
}
