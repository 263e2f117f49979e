// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// TestScriptChain starts a confined script as the interpreter of other scripts: it stays a source, wherever in the chain
// it stands.
func TestScriptChain(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	program, other := copySelf(t, d+"/program"), copySelf(t, d+"/other")
	tool := d + "/tools/tool"
	write(t, tool, "#!"+program+"\n", 0o755)
	// The kernel follows a chain of five scripts.
	before := tool
	var starts []string
	for _, name := range []string{"/4", "/3", "/2", "/1"} {
		write(t, d+name, "#!"+before+"\n", 0o755)
		before = d + name
		starts = append(starts, before)
	}
	write(t, d+"/secret", "x", 0o644)
	write(t, d+"/listed", "x", 0o644)
	calls := onCalls("", "chdir")
	calls.Rule.Sources, calls.Directories = []policies.Source{{Dir: d + "/tools/"}}, []enforce.Directory{{Path: d + "/tools/"}}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		block(d+"/secret", tool), blockRun(other, tool), protocol(policies.ActionBlock, "udp", tool), calls)})
	operations := []string{"read " + d + "/secret", "read " + d + "/listed", "run " + other + " stat /", "udp 9"}
	for _, start := range append(starts, tool) {
		want(t, tryAs(t, start, operations...), "EACCES", "ok", "EACCES", "EACCES")
		g.taken(t)
		want(t, tryAs(t, start, "chdir /"), "ok")
		want(t, g.by(t), "chdir by "+program)
	}
	want(t, tryAs(t, program, append(operations, "chdir /")...), "ok", "ok", "ok", "ok", "ok")
	want(t, g.by(t))
	// By another name of its file, as long as it has rules that deny.
	if err := os.Link(tool, d+"/link"); err != nil {
		t.Fatal(err)
	}
	write(t, d+"/by-link", "#!"+d+"/link\n", 0o755)
	write(t, d+"/by-links", "#!"+d+"/by-link\n", 0o755)
	for _, start := range []string{d + "/link", d + "/by-link", d + "/by-links"} {
		want(t, tryAs(t, start, operations...), "EACCES", "ok", "EACCES", "EACCES")
	}
	// Its allow-list is one for all that it is part of, and what that names is granted.
	list := rules(enforce.ModeEnforce, enforce.PostureAudit, rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/listed", tool),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPattern, "/{proc,sys,dev,usr,lib,lib64,etc,bin}/**", tool),
		block(d+"/secret"), rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/secret", tool))
	list.Postures.File = enforce.PostureBlock
	g.apply(t, enforce.StepPublish{Ruleset: list})
	for _, start := range append(starts, tool) {
		want(t, tryAs(t, start, "read "+d+"/listed", "read "+d+"/secret", "read "+d+"/program"), "ok", "ok", "EACCES")
	}
	want(t, tryAs(t, program, "read "+d+"/listed", "read "+d+"/secret", "read "+d+"/program"), "ok", "EACCES", "ok")
}
