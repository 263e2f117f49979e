// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// marked says whether the file is known by a protected path. The tests' filesystems have no generations but zero or the
// kernel's own, so that the number decides.
func (g *guard) marked(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	var key bpf.MusterMarkKey
	var m bpf.MusterMark
	for all := g.maps[bpf.MusterMapMarks].Iterate(); all.Next(&key, &m); {
		if key.Inode == st.Ino {
			return true
		}
	}
	return false
}

// TestDirectoryRenamedAbove brings a file to a protected name by renaming the directory that it is in. Nobody uses it by
// that name; when the directory moves on, the file stays protected.
func TestDirectoryRenamedAbove(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := publicDir(t)
	for _, path := range []string{"/app/secret", "/next/secret", "/next/other", "/free/secret"} {
		write(t, d+path, "x", 0o666)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/app/secret"))})
	want(t, try(t, "rename "+d+"/app "+d+"/old", "read "+d+"/old/secret", "rename "+d+"/next "+d+"/app"), "ok", "EACCES", "ok")
	for limit := time.Now().Add(time.Minute); !g.marked(t, d+"/app/secret"); {
		if time.Now().After(limit) {
			t.Fatal("the file at the protected name was not marked")
		}
		g.seen(t)
	}
	want(t, try(t, "rename "+d+"/app "+d+"/away", "read "+d+"/away/secret", "read "+d+"/away/other", "read "+d+"/free/secret"),
		"ok", "EACCES", "ok", "ok")
	want(t, g.seen(t), "open "+d+"/away/secret denied by p00000")
}

// TestUpgradeByRename replaces protected files as package managers do: a new file is renamed over the name.
func TestUpgradeByRename(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := publicDir(t)
	dpkg := copySelf(t, d+"/dpkg")
	write(t, d+"/lib/secret", "old", 0o666)
	write(t, d+"/lib/secret.new", "new", 0o666)
	if err := os.Link(d+"/lib/secret", d+"/lib/backup"); err != nil {
		t.Fatal(err)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/lib/secret"),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/lib/secret", dpkg))})
	want(t, try(t, "rename "+d+"/lib/secret.new "+d+"/lib/secret"), "EACCES")
	want(t, tryAs(t, dpkg, "rename "+d+"/lib/secret.new "+d+"/lib/secret", "link "+d+"/lib/secret "+d+"/lib/second"), "ok", "ok")
	want(t, try(t, "read "+d+"/lib/secret", "read "+d+"/lib/second", "read "+d+"/lib/backup"), "EACCES", "EACCES", "EACCES")
	// The old one is protected until it is gone, and its number may then serve another file.
	want(t, tryAs(t, dpkg, "unlink "+d+"/lib/second"), "EACCES")
	if err := os.Remove(d + "/lib/backup"); err != nil {
		t.Fatal(err)
	}
	want(t, try(t, "create "+d+"/lib/another", "read "+d+"/lib/another"), "ok", "ok")
}

// TestNamesMoved: whoever resolves the paths of policies hears of symlinks that are made or replaced, by package managers
// too, and of directories; not of files that come and go.
func TestNamesMoved(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := publicDir(t)
	for _, path := range []string{"/one/f", "/two/f", "/plain"} {
		write(t, d+path, "x", 0o666)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, d+"/one/f"))})
	moved := func(within time.Duration) bool {
		t.Helper()
		select {
		case <-g.NamesMoved():
			return true
		case <-time.After(within):
			return false
		}
	}
	for moved(2 * time.Second) { // what the start of this test did
	}
	want(t, try(t, "create "+d+"/other", "rename "+d+"/plain "+d+"/other", "unlink "+d+"/other"), "ok", "ok", "ok")
	if moved(3 * time.Second) {
		t.Error("a file that came and went")
	}
	for _, operation := range []string{
		"symlink one " + d + "/link", "symlink two " + d + "/link.new", "rename " + d + "/link.new " + d + "/link",
		"rename " + d + "/two " + d + "/three",
	} {
		want(t, try(t, operation), "ok")
		if !moved(time.Minute) {
			t.Errorf("%s: not noticed", operation)
		}
	}
}
