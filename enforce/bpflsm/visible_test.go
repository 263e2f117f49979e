// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// TestVisible: of a visible class everything is told that happens, once, by whom and on what; of another nothing.
// No verdict changes, and what a rule speaks of is told in the rule's name.
func TestVisible(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/open", "x", 0o644)
	write(t, d+"/blocked", "x", 0o644)
	self := must(os.Readlink("/proc/self/exe"))
	tool := copySelf(t, d+"/tool")
	operations := []string{
		"read " + d + "/open", "read " + d + "/blocked", "rename " + d + "/open " + d + "/moved", "rename " + d + "/moved " + d + "/open",
		"udp 9", "chroot /", "ask open.example udp",
	}
	expected := map[policies.Class][]string{
		policies.ClassFile:         {"open " + d + "/open visible", "rename " + d + "/open " + d + "/moved visible"},
		policies.ClassProcess:      {"exec " + tool + " visible"},
		policies.ClassNetwork:      {"socket domain=AF_INET type=SOCK_DGRAM protocol=0 visible", "send domain=AF_INET type=SOCK_DGRAM protocol=UDP visible"},
		policies.ClassCapabilities: {"capable CAP_SYS_CHROOT visible"},
		policies.ClassDNS:          {"query open.example visible"},
	}
	for class, lines := range expected {
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/blocked"))
		rs.Visible = []policies.Class{class}
		g.apply(t, enforce.StepPublish{Ruleset: rs})
		g.taken(t)
		want(t, tryAs(t, tool, operations...), "ok", "EACCES", "ok", "ok", "ok", "ok", "ok")
		seen := map[string]bool{}
		for _, e := range g.taken(t) {
			line := eventLine(e)
			seen[line] = true
			if e.Visible && (e.Class != class || e.Rule != nil || e.Verdict != enforce.Permit) {
				t.Errorf("class %s is visible: %s", class, line)
			}
			if slices.Contains(lines, line) && e.Source != tool && (class != policies.ClassProcess || e.Source != self) && class != policies.ClassDNS {
				t.Errorf("%s by %q", line, e.Source)
			}
		}
		for _, line := range append(lines, "open "+d+"/blocked denied by p00000") {
			if !seen[line] {
				t.Errorf("class %s is visible, and %q was not told: %v", class, line, seen)
			}
		}
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/blocked"))})
	g.taken(t)
	tryAs(t, tool, operations...)
	want(t, g.seen(t), "open "+d+"/blocked denied by p00000")
}
