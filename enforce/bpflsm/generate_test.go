// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// A small world, so that rules and operations meet often.
var (
	testNames    = []string{"a", "b", "ab", "etc", "x-long-name-of-a-file-for-tails", "x-long-name-of-a-file-for-tests"}
	testPatterns = []string{"/a/*", "/**/b", "/etc/?", "/etc/[a-c]*", "/{a,b}/**", "/a/**/x*", "/*/*/*", "/a*/b"}
	testSources  = []string{"/bin/sh", "/usr/bin/curl", "/a/b", "/opt/script"}
)

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func randomPath(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		b.WriteString("/" + pick(r, testNames))
	}
	return b.String()
}

func randomRuleset(r *rand.Rand) *enforce.Ruleset {
	rs := &enforce.Ruleset{Subject: enforce.Host, Mode: enforce.ModeEnforce}
	if chance(r, 20) {
		rs.Mode = enforce.ModeAudit
	}
	rs.Postures.File = pick(r, []enforce.Posture{enforce.PostureAudit, enforce.PostureBlock})
	for p := range 1 + r.IntN(5) {
		id := policies.ID{Kind: policies.KindHost, Name: fmt.Sprintf("p%d", p)}
		dry := rs.Mode == enforce.ModeEnforce && chance(r, 30)
		for n := range 1 + r.IntN(6) {
			rule := randomRule(r)
			rule.Policy, rule.Rule.Index = id, n
			rule.DryRun = dry && rule.Rule.Action != policies.ActionAudit
			rs.Rules = append(rs.Rules, rule)
		}
	}
	return rs
}

func randomRule(r *rand.Rand) enforce.Rule {
	rule := enforce.Rule{Rule: policies.Rule{
		Class:     pick(r, classes[:markClasses]),
		Action:    pick(r, []policies.Action{policies.ActionAllow, policies.ActionAudit, policies.ActionBlock, policies.ActionBlock}),
		OwnerOnly: chance(r, 15), ReadOnly: chance(r, 15), NoTerminal: chance(r, 10),
	}}
	o := &rule.Rule.Object
	switch r.IntN(6) {
	case 0:
		o.Kind, o.Value = policies.ObjectExecName, pick(r, testNames)
	case 1:
		o.Kind, o.Value = policies.ObjectPattern, pick(r, testPatterns)
	case 2, 3:
		o.Kind, o.Value, o.Recursive = policies.ObjectDirectory, randomPath(r)+"/", chance(r, 50)
		if chance(r, 10) {
			o.Value = "/"
		}
	default:
		o.Kind, o.Value = policies.ObjectPath, randomPath(r)
	}
	rule.Objects = []string{o.Value}
	if o.Kind == policies.ObjectPath && chance(r, 30) {
		rule.Objects = append(rule.Objects, "/usr"+o.Value)
	}
	if chance(r, 40) {
		for range 1 + r.IntN(2) {
			source := pick(r, testSources)
			rule.Sources = append(rule.Sources, source)
			rule.Rule.Sources = append(rule.Rule.Sources, policies.Source{Path: source})
		}
	}
	if rule.Rule.Class == policies.ClassProcess {
		rule.Rule.ReadOnly = false
		if chance(r, 25) {
			rule.Rule.HasArgs, rule.Rule.AllowedArgs = true, randomArgs(r)
		}
	}
	return rule
}

func randomOperation(r *rand.Rand, rs *enforce.Ruleset) enforce.Operation {
	op := enforce.Operation{
		Class: pick(r, classes[:markClasses]), Path: randomPath(r), Owner: chance(r, 50), Read: chance(r, 50), Terminal: chance(r, 50),
	}
	if rule := pick(r, rs.Rules); chance(r, 40) && rule.Rule.Object.Kind == policies.ObjectPath {
		op.Class, op.Path = rule.Rule.Class, pick(r, rule.Objects)
	}
	if chance(r, 5) {
		op.Path = "/"
	}
	if chance(r, 3) {
		op.Path, op.NoPath = "", true
	}
	if op.Class == policies.ClassProcess {
		op.Read, op.Mapped, op.Args = false, chance(r, 25), randomArgs(r)
	}
	if marks := rs.Marks(op.Class); len(marks) > 0 && chance(r, 30) {
		op.Marks = append(op.Marks, pick(r, marks))
	}
	op.Source.Executable = pick(r, append([]string{"/sbin/init"}, testSources...))
	if chance(r, 25) {
		op.Source.Script = pick(r, append([]string{"/root/s"}, testSources...))
	}
	if chance(r, 15) {
		op.Source.ExecutableMarks = []string{pick(r, testSources)}
	}
	if chance(r, 10) && op.Source.Script != "" {
		op.Source.ScriptMarks = []string{pick(r, testSources)}
	}
	for op.Source.Script != "" && len(op.Source.Chain) < int(bpf.MusterLimitMIDDLES) && chance(r, 40) {
		op.Source.Chain = append(op.Source.Chain, pick(r, append([]string{"/root/t"}, testSources...)))
		if chance(r, 20) {
			op.Source.ChainMarks = append(op.Source.ChainMarks, pick(r, testSources))
		}
	}
	return op
}

func randomArgs(r *rand.Rand) []string {
	var args []string
	for range r.IntN(4) {
		args = append(args, pick(r, []string{"-a", "-b", "--long", "", "x y"}))
	}
	return args
}
