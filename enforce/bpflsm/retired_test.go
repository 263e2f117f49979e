// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// attachedTimes is how many links there are on the machine to programs of that name.
func attachedTimes(t *testing.T, name string) int {
	t.Helper()
	n := 0
	all := new(link.Iterator)
	defer all.Close()
	for all.Next() {
		info := must(all.Link.Info())
		p, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			continue // it went meanwhile
		}
		if must(p.Info()).Name == name {
			n++
		}
		p.Close()
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRetired replaces rules on files by their being visible: what reads cost under rules goes.
func TestRetired(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	const reads = "file_permission"
	visible := rules(enforce.ModeEnforce, enforce.PostureAudit)
	visible.Visible = []policies.Class{policies.ClassFile, policies.ClassProcess}
	g.apply(t, enforced(block("/opt/nothing")))
	if n := attachedTimes(t, reads); n != 1 {
		t.Errorf("with a rule on files %s is attached %d times", reads, n)
	}
	g.apply(t, enforce.StepPublish{Ruleset: visible})
	begun := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for attachedTimes(t, reads) > 0 && time.Since(begun) < 10*time.Second {
		<-tick.C
	}
	t.Logf("gone after %v", time.Since(begun))
	if n := attachedTimes(t, reads); n != 0 {
		t.Errorf("without one %s is attached %d times", reads, n)
	}
}
