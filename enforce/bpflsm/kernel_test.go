// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// The tests below run inside the lab's kernels.
func TestInVM(t *testing.T) { vm.TestPackage(t, vm.Options{LSM: vm.BPF, TestLimit: testLimit}) }

func (g *guard) apply(t *testing.T, step enforce.Step) {
	t.Helper()
	err := g.Apply(t.Context(), step)
	if refused, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		t.Fatalf("%T: %+v", step, refused)
	}
	if err != nil {
		t.Fatalf("%T: %v", step, err)
	}
}

// seen are the events so far, as short lines.
func (g *guard) seen(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range g.taken(t) {
		lines = append(lines, eventLine(e))
	}
	return lines
}

// taken are the events so far; they are then forgotten.
func (g *guard) taken(t *testing.T) []enforce.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := g.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	events := g.events
	g.events = nil
	return events
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
	if e.Visible {
		s += " visible"
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
	r := enforce.Rule{
		Rule:    policies.Rule{Class: class, Action: action, Object: policies.Object{Kind: kind, Value: value}},
		Objects: []string{value}, Sources: sources,
	}
	for _, path := range sources {
		r.Rule.Sources = append(r.Rule.Sources, policies.Source{Path: path})
	}
	return r
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

func TestSources(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	dir := t.TempDir()
	write(t, dir+"/secret", "x", 0o644)
	updater := copySelf(t, dir+"/updater")
	copySelf(t, dir+"/other")
	list := []enforce.Rule{
		block(dir + "/secret"),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, dir+"/secret", updater),
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, dir+"/d/", dir+"/other", dir+"/script"),
		rule(policies.ClassFile, policies.ActionAudit, policies.ObjectPattern, dir+"/a*"),
	}
	write(t, dir+"/d/x", "x", 0o644)
	write(t, dir+"/ab", "x", 0o644)
	write(t, dir+"/script", "#!"+updater+"\n", 0o755)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
	want(t, tryAs(t, updater, "read "+dir+"/secret", "read "+dir+"/d/x"), "ok", "ok")
	want(t, tryAs(t, dir+"/other", "read "+dir+"/secret", "read "+dir+"/d/x"), "EACCES", "EACCES")
	g.seen(t)
	// A script is a source like its interpreter: what the interpreter may, the script may not.
	want(t, tryAs(t, dir+"/script", "read "+dir+"/secret", "read "+dir+"/d/x"), "ok", "EACCES")
	if e := g.taken(t); len(e) == 0 || e[len(e)-1].Script != dir+"/script" || e[len(e)-1].Source != updater {
		t.Errorf("events %+v", e)
	}
	want(t, try(t, "read "+dir+"/ab"), "ok")
	want(t, g.seen(t), "open "+dir+"/ab audited-by p00003")
	// A source that is renamed keeps its class for Block.
	want(t, try(t, "link "+dir+"/other "+dir+"/innocent"), "ok")
	want(t, tryAs(t, dir+"/innocent", "read "+dir+"/d/x"), "EACCES")
	// … and gains none for Allow.
	want(t, try(t, "link "+updater+" "+dir+"/updater2"), "ok")
	want(t, tryAs(t, dir+"/updater2", "read "+dir+"/secret"), "EACCES")
}

func TestOperations(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, f := range []string{"/p/file", "/p/sub/x", "/free/a", "/free/b"} {
		write(t, d+f, "x", 0o644)
	}
	list := []enforce.Rule{rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/p/")}
	list[0].Rule.Object.Recursive = true
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
	for _, operation := range []string{
		"read D/p/file", "write D/p/file", "create D/p/new", "truncate D/p/file", "list D/p", "unlink D/p/file",
		"rename D/p/file D/free/c", "rename D/free/a D/p/c", "rename D/free/a D/p/file", "link D/p/file D/free/c",
		"link D/free/a D/p/c", "symlink /x D/p/s", "mkdir D/p/m", "rmdir D/p/sub", "mknod D/p/fifo",
		"chmod D/p/file", "chown D/p/file",
	} {
		operation = strings.ReplaceAll(operation, "D/", d+"/")
		if got := try(t, operation); got[0] != "EACCES" {
			t.Errorf("%s: %s", operation, got)
		}
		f := strings.Fields(operation)
		if e := g.taken(t); len(e) != 1 || e[0].Operation != strings.Replace(strings.Replace(f[0], "read", "open", 1), "write", "open", 1) {
			t.Errorf("%s: events %+v", operation, e)
		}
	}
	want(t, try(t, "stat "+d+"/p/file", "read "+d+"/free/a", "create "+d+"/free/n", "rename "+d+"/free/a "+d+"/free/z"),
		"ok", "ok", "ok", "ok")
}

func TestMarks(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, f := range []string{"/secret", "/dir/secret", "/a", "/b"} {
		write(t, d+f, "x", 0o644)
	}
	if err := os.Link(d+"/secret", d+"/older"); err != nil {
		t.Fatal(err)
	}
	free := d + "/mover" // may do what it likes with the names
	copySelf(t, free)
	list := []enforce.Rule{block(d + "/secret"), block(d + "/dir/secret"), block(d + "/later")}
	for _, path := range []string{"/secret", "/dir/secret", "/later"} {
		list = append(list, rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+path, free))
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
	want(t, try(t, "read "+d+"/older"), "EACCES")
	want(t, tryAs(t, free, "rename "+d+"/dir "+d+"/dir2"), "ok")
	want(t, try(t, "read "+d+"/dir2/secret"), "EACCES")
	want(t, tryAs(t, free, "rename "+d+"/a "+d+"/later", "rename "+d+"/later "+d+"/elsewhere"), "ok", "ok")
	want(t, try(t, "read "+d+"/elsewhere", "read "+d+"/b"), "EACCES", "ok")
	if err := os.MkdirAll(d+"/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, d+"/mnt-file", "", 0o644)
	if err := syscall.Mount(d+"/secret", d+"/mnt-file", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	want(t, try(t, "read "+d+"/mnt-file"), "EACCES")
	if err := syscall.Unmount(d+"/mnt-file", 0); err != nil {
		t.Fatal(err)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/nothing"))})
	want(t, try(t, "read "+d+"/older", "read "+d+"/elsewhere"), "ok", "ok")
}

func TestExec(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/bad", "#!"+d+"/shell\n", 0o755)
	write(t, d+"/fine", "#!"+d+"/shell\n", 0o755)
	write(t, d+"/worse", "#!"+d+"/tool\n", 0o755)
	for _, name := range []string{"/shell", "/tool"} {
		copySelf(t, d+name)
	}
	t.Setenv(probeVariable, "stat /")
	list := []enforce.Rule{
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, d+"/bad"),
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectExecName, "tool"),
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
	want(t, tryAs(t, "/proc/self/exe", "run "+d+"/bad stat /", "run "+d+"/fine stat /", "run "+d+"/tool stat /", "run "+d+"/worse stat /", "run "+d+"/shell stat /", "memfd"),
		"EACCES", "ok", "EACCES", "EACCES", "ok", "ok")
	list = []enforce.Rule{rule(policies.ClassProcess, policies.ActionAllow, policies.ObjectDirectory, d+"/", d+"/shell")}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock, list...)})
	g.seen(t)
	want(t, tryAs(t, d+"/shell", "run "+d+"/tool stat /", "run /bin/true stat /", "memfd"), "ok", "EACCES", "EACCES")
	got := g.seen(t)
	if len(got) != 2 || got[0] != "exec /bin/busybox denied by posture" && got[0] != "exec /usr/bin/true denied by posture" {
		t.Errorf("events %q", got)
	}
}

func TestAuditMode(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeAudit, enforce.PostureAudit, block(d+"/f"))})
	want(t, try(t, "read "+d+"/f"), "ok")
	want(t, g.seen(t), "open "+d+"/f would-deny by p00000")
	owner := block(d + "/f")
	owner.Rule.OwnerOnly = true
	write(t, d+"/g", "x", 0o644)
	readOnly := block(d + "/g")
	readOnly.Rule.ReadOnly = true
	if err := os.Chown(d+"/f", 77, 77); err != nil {
		t.Fatal(err)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, owner, readOnly)})
	want(t, try(t, "read "+d+"/f", "read "+d+"/g", "write "+d+"/g"), "EACCES", "ok", "EACCES")
}

func TestChroot(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/root/secret", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/root/"))})
	want(t, try(t, "chroot "+d+"/root", "read /secret"), "ok", "EACCES")
	deep := d + strings.Repeat("/"+strings.Repeat("d", 200), 15)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, deep+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(deep+"/f"))})
	want(t, try(t, "read "+deep+"/f", "list "+deep), "EACCES", "ok")
}
