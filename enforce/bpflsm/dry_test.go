// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// inDryRun puts the policies of these rules in audit.
func inDryRun(rs *enforce.Ruleset, numbers ...int) *enforce.Ruleset {
	copied := *rs
	copied.Rules = slices.Clone(rs.Rules)
	for _, n := range numbers {
		copied.Rules[n].DryRun, copied.Rules[n].Version = true, "v"
	}
	return &copied
}

// dryLines are the dry runs of the events so far: what, and by which policy.
func (g *guard) dryLines(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range g.taken(t) {
		if e.Verdict == enforce.Deny && len(e.DryRuns) > 0 {
			t.Errorf("denied, and of a dry run: %+v", e)
		}
		for _, run := range e.DryRuns {
			line := fmt.Sprintf("%s %s by %s", e.Operation, e.Resource, run.Rule.Policy.Name)
			if run.Posture {
				line += " posture"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// TestDryRun: what a policy in audit tells is what it denies as soon as it is enforced, ranked with all others, with its
// Allows and the default posture.
func TestDryRun(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, f := range []string{"/f", "/g", "/in/x", "/in/y", "/free"} {
		write(t, d+f, "x", 0o644)
	}
	updater := copySelf(t, d+"/updater")
	shell := copySelf(t, d+"/shell")
	allow := func(path string, from ...string) enforce.Rule {
		return rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, path, from...)
	}
	list := rules(enforce.ModeEnforce, enforce.PostureAudit,
		block(d+"/f"), // in audit
		allow(d+"/f", updater),
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/in/"), // in audit
		block(d+"/in/x", updater))
	g.apply(t, enforce.StepPublish{Ruleset: inDryRun(list, 0, 2)})
	g.taken(t)
	want(t, tryAs(t, updater, "read "+d+"/f", "read "+d+"/in/y", "read "+d+"/in/x"), "ok", "ok", "EACCES")
	want(t, g.dryLines(t), "open "+d+"/in/y by p00002")
	want(t, try(t, "read "+d+"/f", "read "+d+"/free"), "ok", "ok")
	want(t, g.dryLines(t), "open "+d+"/f by p00000")
	// Two objects, each by its own rank; the first that would be denied names it.
	want(t, try(t, "rename "+d+"/g "+d+"/in/g", "rename "+d+"/in/g "+d+"/g"), "ok", "ok")
	want(t, g.dryLines(t), "rename "+d+"/g by p00002", "rename "+d+"/in/g by p00002")
	// What is enforced denies, and nothing is told of a dry run.
	g.apply(t, enforce.StepPublish{Ruleset: inDryRun(list, 2)})
	want(t, try(t, "read "+d+"/f"), "EACCES")
	want(t, tryAs(t, updater, "read "+d+"/f"), "ok")
	want(t, g.dryLines(t))
	// An allow-list in audit, of a source that no list in force confines.
	list = rules(enforce.ModeEnforce, enforce.PostureBlock, allow(d+"/f", shell), block(d+"/g"))
	g.apply(t, enforce.StepPublish{Ruleset: inDryRun(list, 0)})
	g.taken(t)
	want(t, tryAs(t, shell, "read "+d+"/free", "read "+d+"/f", "read "+d+"/g"), "ok", "ok", "EACCES")
	got := slices.DeleteFunc(g.dryLines(t), func(line string) bool { return !strings.Contains(line, d) })
	want(t, got, "open "+d+"/free by p00000 posture")
	// A host in audit tells whose list it is.
	audited := inDryRun(list, 0)
	audited.Mode, audited.Rules[0].DryRun = enforce.ModeAudit, false
	g.apply(t, enforce.StepPublish{Ruleset: audited})
	g.taken(t)
	want(t, tryAs(t, shell, "read "+d+"/free"), "ok")
	found := false
	for _, e := range g.taken(t) {
		found = found || e.Resource == d+"/free" && e.Posture && e.WouldDeny && len(e.Lists) == 1 && e.Lists[0] == &audited.Rules[0]
	}
	if !found {
		t.Error("a host in audit did not tell whose allow-list would have denied")
	}
}

// TestDryRunIsTrue compares what random policies in audit tell with what they deny when they are enforced, by real
// operations on real files.
func TestDryRunIsTrue(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	names := []string{"/a", "/b", "/in/a", "/in/b", "/in/in/a"}
	for _, name := range names {
		write(t, d+name, "x", 0o644)
	}
	programs := []string{copySelf(t, d+"/one"), copySelf(t, d+"/two")}
	r := rand.New(rand.NewPCG(7, 7))
	told := 0
	for round := range 6 {
		rs := rules(enforce.ModeEnforce, enforce.PostureBlock, randomDryRules(r, d, names, programs)...)
		trial := r.IntN(len(rs.Rules))
		g.apply(t, enforce.StepPublish{Ruleset: inDryRun(rs, trial)})
		soaked, answers := g.dryTrial(t, d, programs, names)
		g.apply(t, enforce.StepPublish{Ruleset: rs})
		_, enforced := g.dryTrial(t, d, programs, names)
		for what, answer := range enforced {
			denied := answers[what] == "ok" && answer == "EACCES"
			if soaked[what] != denied {
				t.Errorf("round %d, %s: told %t, denied %t (%s, then %s)\n%s", round, what, soaked[what], denied, answers[what], answer, dump(inDryRun(rs, trial)))
			}
			if denied {
				told++
			}
		}
	}
	if told < 5 {
		t.Errorf("only %d operations were told of", told)
	}
	t.Logf("%d operations told of, and then denied", told)
}

// randomDryRules name the programs as sources, so that what the test itself needs is left alone.
func randomDryRules(r *rand.Rand, d string, names, programs []string) []enforce.Rule {
	var list []enforce.Rule
	for range 4 {
		action := pick(r, []policies.Action{policies.ActionAllow, policies.ActionBlock})
		made := rule(policies.ClassFile, action, policies.ObjectPath, d+pick(r, names), pick(r, programs))
		if chance(r, 50) {
			made = rule(policies.ClassFile, action, policies.ObjectDirectory, d+pick(r, []string{"/", "/in/"}), pick(r, programs))
			made.Rule.Object.Recursive = chance(r, 50)
		}
		made.Rule.ReadOnly = chance(r, 25)
		list = append(list, made)
	}
	return list
}

// dryTrial has each program read and write each file: what the dry run told of, and what came of it.
func (g *guard) dryTrial(t *testing.T, d string, programs, names []string) (told map[string]bool, answers map[string]string) {
	t.Helper()
	told, answers = map[string]bool{}, map[string]string{}
	var operations []string
	for _, name := range names {
		operations = append(operations, "read "+d+name, "write "+d+name)
	}
	for _, program := range programs {
		for _, operation := range operations {
			g.taken(t)
			what := program + " " + operation
			answers[what] = tryAs(t, program, operation)[0]
			for _, e := range g.taken(t) {
				told[what] = told[what] || e.Resource == strings.Fields(operation)[1] && len(e.DryRuns) > 0
			}
		}
	}
	return told, answers
}

// TestManyDryRuns: of more policies in dry run than have a bit of their own the kernel tells too much, and the answer is
// the same.
func TestManyDryRuns(t *testing.T) {
	t.Parallel()
	p := newProber(t)
	var list []enforce.Rule
	for n := range 40 {
		list = append(list, rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, fmt.Sprintf("/f%d", n), testSources[0]))
	}
	rs := rules(enforce.ModeEnforce, enforce.PostureBlock, list...)
	for n := range rs.Rules {
		rs.Rules[n].DryRun = true
	}
	image, err := render(rs, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(p.slots, p.inner, image.Bytes); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/f0", "/f30", "/f31", "/f39", "/other"} {
		for _, source := range testSources[:2] {
			op := enforce.Operation{Class: policies.ClassFile, Path: path, Source: enforce.ProcessSource{Executable: source}}
			p.agree(t, image, &op)
		}
	}
	if p.decisions != 10 || p.dryRuns != 4*39+40 {
		t.Errorf("%d decisions, %d dry runs", p.decisions, p.dryRuns)
	}
}

// TestQuietDryRun: what an allow-list in dry run permits is no event, though nobody would be wronged by one.
func TestQuietDryRun(t *testing.T) {
	t.Parallel()
	p := newProber(t)
	rs := inDryRun(rules(enforce.ModeEnforce, enforce.PostureBlock, rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, "/f", testSources[0])), 0)
	image, err := render(rs, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(p.slots, p.inner, image.Bytes); err != nil {
		t.Fatal(err)
	}
	for path, told := range map[string]bool{"/f": false, "/other": true} {
		a := attemptOf(&enforce.Operation{Class: policies.ClassFile, Path: path, Source: enforce.ProcessSource{Executable: testSources[0]}}, testKey)
		if o := p.decide(t, &a); o.flags&bpf.MusterEventFlagEVENT_DRY != 0 != told {
			t.Errorf("%s: %+v", path, o)
		}
	}
}

// BenchmarkDryRun is one decision of the matcher, called from user space, without a policy in dry run, with one enforced, and
// with the same one in dry run. The fastest call says most on a busy machine.
func BenchmarkDryRun(b *testing.B) {
	p := newProber(b)
	list := rules(enforce.ModeEnforce, enforce.PostureBlock, block("/etc/shadow"),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, "/etc/motd", testSources[0]))
	for _, c := range []struct {
		name, path, source string
		dry                []int
	}{
		{"rule/enforced", "/etc/shadow", testSources[1], nil},
		{"rule/dry", "/etc/shadow", testSources[1], []int{0}},
		{"posture/enforced", "/etc/passwd", testSources[0], nil},
		{"posture/dry", "/etc/passwd", testSources[0], []int{1}},
		{"unnamed/enforced", "/etc/passwd", testSources[1], nil},
		{"unnamed/dry", "/etc/passwd", testSources[1], []int{0, 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			image, err := render(inDryRun(list, c.dry...), testKey)
			if err != nil {
				b.Fatal(err)
			}
			if err := publish(p.slots, p.inner, image.Bytes); err != nil {
				b.Fatal(err)
			}
			op := enforce.Operation{Class: policies.ClassFile, Path: c.path, Source: enforce.ProcessSource{Executable: c.source}}
			a := attemptOf(&op, testKey)
			fastest := time.Hour
			for b.Loop() {
				begun := time.Now()
				p.decide(b, &a)
				fastest = min(fastest, time.Since(begun))
			}
			b.ReportMetric(float64(fastest.Nanoseconds()), "min-ns/op")
		})
	}
}
