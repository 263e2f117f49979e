// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

func policy(name string, labels map[string]string, list ...policies.Rule) *policies.Policy {
	p := &policies.Policy{ID: policies.ID{Kind: policies.KindHost, Name: name}, Labels: labels}
	for i, r := range list {
		r.Index = i
		p.Rules = append(p.Rules, r)
	}
	return p
}

func pathRule(action policies.Action, class policies.Class, kind policies.ObjectKind, value string, sources ...string) policies.Rule {
	r := policies.Rule{Action: action, Class: class, Object: policies.Object{Kind: kind, Value: value}}
	for _, s := range sources {
		r.Sources = append(r.Sources, policies.Source{Path: s})
	}
	return r
}

func blockRule(path string) policies.Rule {
	return pathRule(policies.ActionBlock, file, policies.ObjectPath, path)
}

func input(list ...*policies.Policy) enforce.CompileInput {
	return enforce.CompileInput{
		Subject: enforce.Host, Policies: list, Mode: enforce.ModeEnforce, Capabilities: enforcetest.Capabilities("bpflsm"),
	}
}

// gapLines are the gaps as policy/rule reason.
func gapLines(gaps []enforce.Gap) []string {
	lines := []string{}
	for _, g := range gaps {
		lines = append(lines, fmt.Sprintf("%s/%d %s", g.Policy.Name, g.Rule, g.Reason))
	}
	return lines
}

// TestCompileVisible: what the backend can show is part of the ruleset, in one order; what it cannot is a gap.
func TestCompileVisible(t *testing.T) {
	t.Parallel()
	in := input()
	in.Visible = []policies.Class{policies.ClassProcess, policies.ClassFile, policies.ClassProcess}
	rs, gaps := enforce.Compile(in)
	if !slices.Equal(rs.Visible, []policies.Class{policies.ClassFile, policies.ClassProcess}) || len(gaps) > 0 {
		t.Errorf("%v, gaps %v", rs.Visible, gaps)
	}
	plain, _ := enforce.Compile(input())
	if plain.Digest() == rs.Digest() {
		t.Error("visibility makes another ruleset")
	}
	in.Capabilities.Classes = map[policies.Class]bool{policies.ClassProcess: true}
	rs, gaps = enforce.Compile(in)
	if !slices.Equal(rs.Visible, []policies.Class{policies.ClassProcess}) || !slices.Equal(gapLines(gaps), []string{"visibility/-1 class"}) {
		t.Errorf("%v, gaps %v", rs.Visible, gaps)
	}
}

func TestCompileGaps(t *testing.T) {
	t.Parallel()
	allowFile := pathRule(policies.ActionAllow, file, policies.ObjectPath, "/f")
	fromSource := pathRule(policies.ActionAllow, file, policies.ObjectPath, "/f", "/bin/a")
	mode := func(m enforce.Mode) map[string]string { return map[string]string{enforce.ModeLabel: string(m)} }
	without := func(in enforce.CompileInput, features ...string) enforce.CompileInput {
		for _, f := range features {
			delete(in.Capabilities.Features, f)
		}
		return in
	}
	for _, tc := range []struct {
		name  string
		in    enforce.CompileInput
		rules int
		gaps  []string
	}{
		{"nothing", input(), 0, nil},
		{"one block", input(policy("p", nil, blockRule("/f"))), 1, nil},
		{"host-wide allow is refused, the rest applied", input(policy("p", nil, allowFile, blockRule("/g"), fromSource)), 2, []string{"p/0 host-allow-list"}},
		{"host-wide allow when allowed", func() enforce.CompileInput {
			in := input(policy("p", nil, allowFile))
			in.AllowHostAllowlist = true
			return in
		}(), 1, nil},
		{"container-wide allow", func() enforce.CompileInput {
			in := input(policy("p", nil, allowFile))
			in.Subject = container
			return in
		}(), 1, nil},
		{"no containers", func() enforce.CompileInput {
			in := without(input(policy("p", nil, allowFile)), enforce.FeatureContainerSubject)
			in.Subject = container
			return in
		}(), 0, []string{"p/-1 container-subject"}},
		{"policy in audit", input(policy("p", mode(enforce.ModeAudit), blockRule("/f"), fromSource, pathRule(policies.ActionAudit, file, policies.ObjectPath, "/f"))), 3, nil},
		{"policy in audit in an audited ruleset", func() enforce.CompileInput {
			in := input(policy("p", mode(enforce.ModeAudit), blockRule("/f"), fromSource))
			in.Mode = enforce.ModeAudit
			return in
		}(), 2, nil},
		{"policy off", input(policy("p", mode(enforce.ModeOff), blockRule("/f")), policy("q", nil, blockRule("/f"))), 1, []string{"p/-1 mode"}},
		{"policy of an unknown mode", input(policy("p", mode("enfroce"), blockRule("/f"))), 1, []string{"p/-1 mode"}},
		{"host off", func() enforce.CompileInput {
			in := input(policy("p", nil, blockRule("/f")))
			in.Mode = enforce.ModeOff
			return in
		}(), 0, []string{"p/-1 mode"}},
		{
			"classes that the backend lacks", pathsOnly(input(policy("p", nil,
				pathRule(policies.ActionBlock, network, policies.ObjectProtocol, "tcp"),
				pathRule(policies.ActionBlock, dns, policies.ObjectDomain, "example.org"),
				pathRule(policies.ActionBlock, capabilities, policies.ObjectCapability, "chown"),
				pathRule(policies.ActionAllow, policies.ClassSyscalls, policies.ObjectSyscall, ""),
				pathRule(policies.ActionBlock, policies.ClassDevice, policies.ObjectDevice, "x")))),
			0,
			[]string{"p/0 class", "p/1 dns", "p/2 class", "p/3 syscalls", "p/4 class"},
		},
		{
			"features that the backend lacks", without(input(policy("p", nil,
				pathRule(policies.ActionBlock, file, policies.ObjectPattern, "/a*"),
				pathRule(policies.ActionBlock, process, policies.ObjectExecName, "a"),
				policies.Rule{Action: policies.ActionBlock, Class: file, Object: policies.Object{Kind: policies.ObjectPath, Value: "/a"}, OwnerOnly: true},
				policies.Rule{Action: policies.ActionBlock, Class: file, Object: policies.Object{Kind: policies.ObjectPath, Value: "/a"}, NoTerminal: true},
				policies.Rule{Action: policies.ActionBlock, Class: process, Object: policies.Object{Kind: policies.ObjectPath, Value: "/a"}, HasArgs: true})),
				enforce.FeaturePattern, enforce.FeatureExecName, enforce.FeatureOwnerOnly, enforce.FeaturePts, enforce.FeatureAllowedArgs),
			0,
			[]string{"p/0 pattern", "p/1 execname", "p/2 owner-only", "p/3 pts", "p/4 allowed-args"},
		},
		{"a backend of names keeps an exact Block and says what it misses", without(input(policy("p", nil, blockRule("/f"))), enforce.FeatureHardLink), 1, []string{"p/0 hard-link"}},
		{"an explosive pattern", input(policy("p", nil, pathRule(policies.ActionBlock, file, policies.ObjectPattern, "/**a????????????????????"), blockRule("/g"))), 1, []string{"p/0 pattern-complexity"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rs, gaps := enforce.Compile(tc.in)
			if len(rs.Rules) != tc.rules {
				t.Errorf("%d rules, want %d", len(rs.Rules), tc.rules)
			}
			if got := gapLines(gaps); !slices.Equal(got, tc.gaps) {
				t.Errorf("gaps %v, want %v", got, tc.gaps)
			}
			for _, g := range gaps {
				if g.Detail == "" || g.Backend != "bpflsm" || g.Subject != tc.in.Subject {
					t.Errorf("gap is not complete: %+v", g)
				}
			}
		})
	}
}

// TestHostAllowListNamed: an operator who reads the gap learns the setting's name.
func TestHostAllowListNamed(t *testing.T) {
	t.Parallel()
	_, gaps := enforce.Compile(input(policy("p", nil, pathRule(policies.ActionAllow, process, policies.ObjectPath, "/f"))))
	if len(gaps) != 1 || !strings.Contains(gaps[0].Detail, "allowHostAllowlist") {
		t.Errorf("gaps %+v", gaps)
	}
}

func TestCompileOrder(t *testing.T) {
	t.Parallel()
	a, b := policy("a", nil, blockRule("/1"), blockRule("/2")), policy("b", nil, blockRule("/0"))
	ns := policy("a", nil, blockRule("/3"))
	ns.Kind, ns.Namespace = policies.KindContainer, "z"
	one, _ := enforce.Compile(input(b, ns, a))
	two, _ := enforce.Compile(input(a, b, ns))
	if !reflect.DeepEqual(one, two) || one.Digest() != two.Digest() {
		t.Error("the order of policies matters")
	}
	var order []string
	for _, r := range one.Rules {
		order = append(order, r.Rule.Object.Value)
	}
	if want := []string{"/1", "/2", "/0", "/3"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestCompileAliases(t *testing.T) {
	t.Parallel()
	p := policy("p", nil,
		pathRule(policies.ActionBlock, process, policies.ObjectPath, "/bin/sleep", "/bin/sh", "/usr/bin/dash"),
		pathRule(policies.ActionBlock, process, policies.ObjectDirectory, "/sbin/"),
		pathRule(policies.ActionBlock, process, policies.ObjectPattern, `/sbin/x[a-z]/*`),
		pathRule(policies.ActionBlock, process, policies.ObjectPattern, `/**/x`),
		pathRule(policies.ActionBlock, process, policies.ObjectExecName, "sleep"),
		pathRule(policies.ActionBlock, process, policies.ObjectPattern, `/we\*ird/*`))
	if got, want := enforce.LiteralPaths([]*policies.Policy{p}), []string{"/bin/sh", "/bin/sleep", "/sbin/", "/usr/bin/dash", "/we*ird/"}; !slices.Equal(got, want) {
		t.Errorf("LiteralPaths %q, want %q", got, want)
	}
	in := input(p)
	in.Aliases = map[string]string{"/bin/sleep": "/usr/bin/sleep", "/sbin/": "/usr/{sbin}/", "/bin/sh": "/usr/bin/dash", "/we*ird/": "/w"}
	rs, _ := enforce.Compile(in)
	for i, want := range [][]string{
		{"/bin/sleep", "/usr/bin/sleep"},
		{"/sbin/", "/usr/{sbin}/"},
		{"/sbin/x[a-z]/*", `/usr/\{sbin\}/x[a-z]/*`},
		{"/**/x"},
		{"sleep"},
		{`/we\*ird/*`, "/w/*"},
	} {
		if got := rs.Rules[i].Objects; !slices.Equal(got, want) {
			t.Errorf("rule %d: objects %q, want %q", i, got, want)
		}
	}
	if got, want := rs.Rules[0].Sources, []string{"/bin/sh", "/usr/bin/dash"}; !slices.Equal(got, want) {
		t.Errorf("sources %q, want %q", got, want)
	}
	if got, want := rs.Sources(), []string{"/bin/sh", "/usr/bin/dash"}; !slices.Equal(got, want) {
		t.Errorf("interned sources %q, want %q", got, want)
	}
	if d := rs.Decide(op(process, "/usr/{sbin}/xy/z", "/bin/z")); d.Verdict != enforce.Deny || d.Rule != 2 {
		t.Errorf("resolved pattern: %+v", d)
	}
}

// TestDigest: equal rulesets have equal digests, and everything that the kernel does or says changes them.
func TestDigest(t *testing.T) {
	t.Parallel()
	base := func() *enforce.Ruleset {
		rs := rules(nil, block(file, "/f", from("/bin/a"), also("/g")))
		rs.Rules[0].Rule.Tags = []string{"x"}
		return rs
	}
	seen := map[string]string{base().Digest(): "base"}
	if same := base(); same.Digest() != base().Digest() || !strings.HasPrefix(same.Digest(), "sha256:") || len(same.Digest()) != 71 {
		t.Errorf("digest %s", same.Digest())
	}
	for name, change := range map[string]func(*enforce.Ruleset){
		"subject":   func(rs *enforce.Ruleset) { rs.Subject = container },
		"mode":      func(rs *enforce.Ruleset) { rs.Mode = enforce.ModeAudit },
		"posture":   func(rs *enforce.Ruleset) { rs.Postures.File = enforce.PostureBlock },
		"policy":    func(rs *enforce.Ruleset) { rs.Rules[0].Policy.Name = "q" },
		"namespace": func(rs *enforce.Ruleset) { rs.Rules[0].Policy.Namespace = "q" },
		"index":     func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Index = 1 },
		"action":    func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Action = policies.ActionAudit },
		"class":     func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Class = process },
		"object":    func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Object.Value = "/h" },
		"kind":      func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Object.Kind = policies.ObjectPattern },
		"recursive": func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Object.Recursive = true },
		"objects":   func(rs *enforce.Ruleset) { rs.Rules[0].Objects[1] = "/h" },
		"bytes":     func(rs *enforce.Ruleset) { rs.Rules[0].Objects[1] = "/\xff" },
		"bytes 2":   func(rs *enforce.Ruleset) { rs.Rules[0].Objects[1] = "/\xfe" },
		"sources":   func(rs *enforce.Ruleset) { rs.Rules[0].Sources[0] = "/bin/b" },
		"owner":     func(rs *enforce.Ruleset) { rs.Rules[0].Rule.OwnerOnly = true },
		"read":      func(rs *enforce.Ruleset) { rs.Rules[0].Rule.ReadOnly = true },
		"terminal":  func(rs *enforce.Ruleset) { rs.Rules[0].Rule.NoTerminal = true },
		"no args":   func(rs *enforce.Ruleset) { rs.Rules[0].Rule.HasArgs = true },
		"args": func(rs *enforce.Ruleset) {
			rs.Rules[0].Rule.HasArgs, rs.Rules[0].Rule.AllowedArgs = true, []string{"a"}
		},
		"severity": func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Severity = 3 },
		"message":  func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Message = "m" },
		"tags":     func(rs *enforce.Ruleset) { rs.Rules[0].Rule.Tags[0] = "y" },
		"dry run":  func(rs *enforce.Ruleset) { rs.Rules[0].DryRun = true },
		"no rules": func(rs *enforce.Ruleset) { rs.Rules = nil },
	} {
		rs := base()
		change(rs)
		if other, ok := seen[rs.Digest()]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[rs.Digest()] = name
	}
	moved := base()
	moved.Rules[0].Rule.Position.Line = 7
	if moved.Digest() != base().Digest() {
		t.Error("a moved line changes the digest")
	}
}

// TestCompileDeterministic compiles the same input in two orders many times.
func TestCompileDeterministic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		in := enforcetest.NewGenerator(seed).Input(20)
		one, gapsOne := enforce.Compile(in)
		r := rand.New(rand.NewPCG(seed, 9))
		r.Shuffle(len(in.Policies), func(i, j int) { in.Policies[i], in.Policies[j] = in.Policies[j], in.Policies[i] })
		two, gapsTwo := enforce.Compile(in)
		if !reflect.DeepEqual(one, two) || !reflect.DeepEqual(gapsOne, gapsTwo) {
			t.Fatalf("seed %d: order matters", seed)
		}
	}
}

// manyRules is a realistic large fleet: ten rules a policy.
func manyRules(count int) enforce.CompileInput {
	in := input()
	for i := range count {
		if i%10 == 0 {
			in.Policies = append(in.Policies, policy(fmt.Sprintf("policy-%05d", i/10), nil))
		}
		p := in.Policies[len(in.Policies)-1]
		r := blockRule(fmt.Sprintf("/srv/application-%03d/lib/module-%05d.so", i%97, i))
		if i%25 == 1 {
			r = pathRule(policies.ActionBlock, file, policies.ObjectPattern, fmt.Sprintf("/var/log/service-%d/*.log.[0-9]", i))
		}
		r.Index = len(p.Rules)
		p.Rules = append(p.Rules, r)
	}
	return in
}

func BenchmarkCompile(b *testing.B) {
	for _, count := range []int{1_000, 10_000} {
		in := manyRules(count)
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				enforce.Compile(in)
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	for _, count := range []int{1_000, 10_000} {
		rs, _ := enforce.Compile(manyRules(count))
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				rs.Digest()
			}
		})
	}
}

func BenchmarkCheckProtect(b *testing.B) {
	rs, _ := enforce.Compile(manyRules(10_000))
	pairs := enforce.DefaultProtect(debian(), agent())
	b.ReportMetric(float64(len(pairs)), "pairs")
	for b.Loop() {
		enforce.CheckProtect(rs, pairs)
	}
}

// pathsOnly leaves the backend with the classes whose objects are files.
func pathsOnly(in enforce.CompileInput) enforce.CompileInput {
	for _, class := range []policies.Class{network, dns, capabilities, policies.ClassSyscalls} {
		delete(in.Capabilities.Classes, class)
	}
	return in
}
