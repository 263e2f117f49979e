// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// claimed is what a starting agent does first.
func claimed(locked bool) error {
	b, err := New(Config{Root: testRoot})
	if err != nil {
		return err
	}
	done, err := b.Claim(locked)
	if err == nil && !done {
		err = errors.New("another agent runs")
	}
	return err
}

// TestClaim: an agent that starts anew is exempt before it opens anything that a rule could close, and takes nothing from one
// that runs.
func TestClaim(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"),
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, "/sys/fs/bpf/"))})
	want(t, try(t, "claim", "read "+d+"/f"), "another agent runs", "EACCES")

	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	settings, err := g.settings()
	if err != nil {
		t.Fatal(err)
	}
	was := settings
	settings.AgentTgid = uint32(gone.Process.Pid)
	if err := g.maps[bpf.MusterMapConfig].Put(uint32(0), &settings); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first to claim ends, as agents do
		want(t, try(t, "read "+d+"/f", "claim", "read "+d+"/f"), "EACCES", "ok", "ok")
	}
	if err := g.maps[bpf.MusterMapConfig].Put(uint32(0), &was); err != nil {
		t.Fatal(err)
	}
	want(t, try(t, "claim", "claim-locked", "read "+d+"/f"), "another agent runs", "ok", "ok")
	if err := g.maps[bpf.MusterMapConfig].Put(uint32(0), &was); err != nil {
		t.Fatal(err)
	}
}
