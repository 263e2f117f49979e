// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Shorthand for the tables: each case is a ruleset, an operation and the decision.

const (
	process      = policies.ClassProcess
	file         = policies.ClassFile
	network      = policies.ClassNetwork
	dns          = policies.ClassDNS
	capabilities = policies.ClassCapabilities

	container = enforce.SubjectID("c0ffee")
)

type ruleOption func(*enforce.Rule)

func rule(action policies.Action, class policies.Class, kind policies.ObjectKind, value string, options ...ruleOption) enforce.Rule {
	r := enforce.Rule{
		Policy:  policies.ID{Kind: policies.KindHost, Name: "p"},
		Rule:    policies.Rule{Action: action, Class: class, Object: policies.Object{Kind: kind, Value: value}},
		Objects: []string{value},
	}
	for _, o := range options {
		o(&r)
	}
	return r
}

func block(class policies.Class, path string, options ...ruleOption) enforce.Rule {
	return rule(policies.ActionBlock, class, policies.ObjectPath, path, options...)
}

func allow(class policies.Class, path string, options ...ruleOption) enforce.Rule {
	return rule(policies.ActionAllow, class, policies.ObjectPath, path, options...)
}

func audit(path string, options ...ruleOption) enforce.Rule {
	return rule(policies.ActionAudit, file, policies.ObjectPath, path, options...)
}

func as(kind policies.ObjectKind) ruleOption {
	return func(r *enforce.Rule) { r.Rule.Object.Kind = kind }
}

func from(paths ...string) ruleOption {
	return func(r *enforce.Rule) {
		for _, p := range paths {
			r.Rule.Sources = append(r.Rule.Sources, policies.Source{Path: p})
		}
		r.Sources = append(r.Sources, paths...)
	}
}

func of(policy string) ruleOption { return func(r *enforce.Rule) { r.Policy.Name = policy } }

func also(spellings ...string) ruleOption {
	return func(r *enforce.Rule) { r.Objects = append(r.Objects, spellings...) }
}

func recursive(r *enforce.Rule)  { r.Rule.Object.Recursive = true }
func ownerOnly(r *enforce.Rule)  { r.Rule.OwnerOnly = true }
func readOnly(r *enforce.Rule)   { r.Rule.ReadOnly = true }
func noTerminal(r *enforce.Rule) { r.Rule.NoTerminal = true }
func dryRun(r *enforce.Rule)     { r.DryRun = true }

func args(allowed ...string) ruleOption {
	return func(r *enforce.Rule) { r.Rule.AllowedArgs, r.Rule.HasArgs = allowed, true }
}

type rulesetOption func(*enforce.Ruleset)

func container1(rs *enforce.Ruleset) { rs.Subject = container }
func auditing(rs *enforce.Ruleset)   { rs.Mode = enforce.ModeAudit }

func posture(p enforce.Posture) rulesetOption {
	return func(rs *enforce.Ruleset) {
		rs.Postures = enforce.Postures{File: p, Network: p, Capabilities: p}
	}
}

func rules(options []rulesetOption, list ...enforce.Rule) *enforce.Ruleset {
	rs := &enforce.Ruleset{Subject: enforce.Host, Mode: enforce.ModeEnforce, Rules: list}
	for _, o := range options {
		o(rs)
	}
	return rs
}

func with(options ...rulesetOption) []rulesetOption { return options }

// op is an operation; src its executable.
func op(class policies.Class, path, src string, change ...func(*enforce.Operation)) enforce.Operation {
	o := enforce.Operation{Class: class, Path: path, Source: enforce.ProcessSource{Executable: src}}
	for _, c := range change {
		c(&o)
	}
	return o
}

func owner(o *enforce.Operation)    { o.Owner = true }
func read(o *enforce.Operation)     { o.Read = true }
func terminal(o *enforce.Operation) { o.Terminal = true }
func noPath(o *enforce.Operation)   { o.Path, o.NoPath = "", true }

func marked(paths ...string) func(*enforce.Operation) {
	return func(o *enforce.Operation) { o.Marks = paths }
}

func script(path string) func(*enforce.Operation) {
	return func(o *enforce.Operation) { o.Source.Script = path }
}

func sourceMarked(paths ...string) func(*enforce.Operation) {
	return func(o *enforce.Operation) { o.Source.ExecutableMarks = paths }
}

func argv(list ...string) func(*enforce.Operation) {
	return func(o *enforce.Operation) { o.Args = list }
}

func named(names ...string) func(*enforce.Operation) {
	return func(o *enforce.Operation) { o.Names = names }
}

// The decisions.
func denied(rule int) enforce.Decision    { return enforce.Decision{Verdict: enforce.Deny, Rule: rule} }
func permitted(rule int) enforce.Decision { return enforce.Decision{Rule: rule} }

var (
	unmatched       = enforce.Decision{Rule: -1}
	deniedByPosture = enforce.Decision{Verdict: enforce.Deny, Rule: -1, Posture: true}
	auditedPosture  = enforce.Decision{Rule: -1, Posture: true, WouldDeny: true}
	unbuildable     = enforce.Decision{Verdict: enforce.Deny, Rule: -1, Unbuildable: true}
)

func auditedBy(d enforce.Decision, rules ...int) enforce.Decision {
	d.Audits = rules
	return d
}

func dryRunBy(d enforce.Decision, runs ...enforce.DryRun) enforce.Decision {
	d.DryRuns = runs
	return d
}

func wouldDeny(d enforce.Decision) enforce.Decision {
	d.Verdict, d.WouldDeny = enforce.Permit, true
	return d
}

type decideCase struct {
	rs   *enforce.Ruleset
	op   enforce.Operation
	want enforce.Decision
}

// sentence is one sentence of SEMANTICS, quoted, and the cases that show it.
type sentence struct {
	text  string
	cases []decideCase
}

func run(t *testing.T, sentences []sentence) {
	t.Helper()
	for _, s := range sentences {
		t.Run(s.text, func(t *testing.T) {
			t.Parallel()
			for i, c := range s.cases {
				if got := c.rs.Decide(c.op); !reflect.DeepEqual(got, c.want) {
					t.Errorf("case %d: %+v on %s\n got %+v\nwant %+v", i, c.op, list(c.rs), got, c.want)
				}
			}
		})
	}
}

func list(rs *enforce.Ruleset) string {
	s := fmt.Sprintf("%s %s %+v:", rs.Subject, rs.Mode, rs.Postures)
	for i, r := range rs.Rules {
		s += fmt.Sprintf("\n  %d: %s %s %v from %v", i, r.Rule.Action, r.Rule.Object.Kind, r.Objects, r.Sources)
	}
	return s
}
