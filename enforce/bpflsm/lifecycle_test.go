// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

const testRoot = "/sys/fs/bpf/muster-test"

// faults are the components that are not as they should be.
func faults(s enforce.State) []string {
	var list []string
	for _, c := range s.Components {
		if c.Condition != "" {
			list = append(list, fmt.Sprintf("%s %s %s", c.Kind, c.Name, c.Condition))
		}
	}
	return list
}

func (g *guard) observe(t *testing.T, wanted ...*enforce.Ruleset) enforce.State {
	t.Helper()
	s, err := g.Observe(t.Context(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSurvivesKill kills an agent with SIGKILL: what it published goes on, and the next agent adopts it.
func TestSurvivesKill(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	alone(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	c := exec.Command("/proc/self/exe")
	c.Env = []string{probeVariable + "=agent " + testRoot + " " + d + "/f"}
	if out, err := c.Output(); err == nil || string(out) != "attached\n" {
		t.Fatalf("agent: %s %v", out, err)
	}
	want(t, try(t, "read "+d+"/f"), "EACCES")
	before, err := os.ReadDir(testRoot)
	if err != nil || len(before) != 1 {
		t.Fatalf("pins %v %v", before, err)
	}
	next, err := New(Config{Root: testRoot, RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))
	s, err := next.Observe(t.Context(), []*enforce.Ruleset{rs})
	if err != nil {
		t.Fatal(err)
	}
	want(t, faults(s))
	if found := s.Subjects[enforce.Host]; !found.Intact || found.Digest != rs.Digest() {
		t.Errorf("found %+v", found)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	g := startGuard(t, testRoot)
	g.observe(t, rs)
	want(t, try(t, "read "+d+"/f"), "EACCES")
	// The denial before this agent came is still in the ring, and its rule is known from what was observed.
	for _, line := range g.seen(t) {
		if line != "open "+d+"/f denied by p00000" {
			t.Error(line)
		}
	}
	if s := g.observe(t, rs); s.Unlabelled != 0 {
		t.Errorf("%d threads without a label", s.Unlabelled)
	}
}

// TestEmptiedSlot takes the ruleset out of its slot: the programs that it needs stay what they were, so damage to one of
// them at that moment is told, and none is let go by a repair.
func TestEmptiedSlot(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))
	publish := enforce.StepPublish{Ruleset: rs}
	g.apply(t, publish)
	if err := withdraw(g.maps[bpf.MusterMapSlots]); err != nil {
		t.Fatal(err)
	}
	want(t, faults(g.observe(t, rs)))
	if err := os.Remove(g.pins.linkPath(bpf.MusterProgFileOpen)); err != nil {
		t.Fatal(err)
	}
	want(t, faults(g.observe(t, rs)), "link file_open missing")
	g.apply(t, enforce.StepAttach{})
	want(t, faults(g.observe(t, rs)))
	g.apply(t, publish)
	want(t, try(t, "read "+d+"/f"), "EACCES")
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	if state := g.observe(t); len(state.Components) == 0 || len(faults(state)) != 0 {
		t.Errorf("after a ruleset that was withdrawn: %v", faults(state))
	}
	want(t, try(t, "read "+d+"/f"), "ok")
}

// TestDrift breaks things by hand: each is named, and StepAttach or StepPublish repairs it.
func TestDrift(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))
	publish := enforce.StepPublish{Ruleset: rs}
	g.apply(t, publish)
	want(t, faults(g.observe(t, rs)))
	for _, damage := range []struct{ path, fault string }{
		{g.pins.linkPath(bpf.MusterProgFileOpen), "link file_open missing"},
		{g.pins.mapPath(bpf.MusterMapMarks), "map marks missing"},
	} {
		if err := os.Remove(damage.path); err != nil {
			t.Fatal(err)
		}
		want(t, faults(g.observe(t, rs)), damage.fault)
		g.apply(t, enforce.StepAttach{Reason: damage.fault})
		want(t, faults(g.observe(t, rs)))
		want(t, try(t, "read "+d+"/f"), "EACCES")
	}
	settings, err := g.settings()
	if err != nil {
		t.Fatal(err)
	}
	settings.AgentTgid = uint32(os.Getppid()) // somebody else is never denied
	if err := g.maps[bpf.MusterMapConfig].Put(uint32(0), &settings); err != nil {
		t.Fatal(err)
	}
	want(t, faults(g.observe(t, rs)), "map config altered")
	g.apply(t, enforce.StepAttach{})
	want(t, faults(g.observe(t, rs)))

	for key := range g.made {
		if err := g.maps[bpf.MusterMapMarks].Delete(&key); err != nil {
			t.Fatal(err)
		}
	}
	if s := g.observe(t, rs).Subjects[enforce.Host]; s.Intact || !strings.Contains(s.Detail, d+"/f") {
		t.Errorf("removed marks: %+v", s)
	}
	g.apply(t, publish)
	if s := g.observe(t, rs).Subjects[enforce.Host]; !s.Intact {
		t.Errorf("marks made again: %+v", s)
	}
	other, err := New(Config{Root: testRoot + "-other"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := g.key()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := render(rs, key)
	if err != nil {
		t.Fatal(err)
	}
	forged.Bytes[len(forged.Bytes)-1] ^= 1
	if err := publishImage(g, other, forged); err != nil {
		t.Fatal(err)
	}
	if s := g.observe(t, rs).Subjects[enforce.Host]; s.Intact || s.Digest != rs.Digest() {
		t.Errorf("forged image: %+v", s)
	}
	g.apply(t, publish)
	if s := g.observe(t, rs).Subjects[enforce.Host]; !s.Intact {
		t.Errorf("repaired image: %+v", s)
	}
	g.apply(t, enforce.StepDetach{})
	want(t, try(t, "read "+d+"/f"), "ok")
	g.apply(t, enforce.StepAttach{})
	g.apply(t, publish)
	want(t, try(t, "read "+d+"/f"), "EACCES")
}

func publishImage(g *guard, other *Backend, image *Image) error {
	return publish(g.maps[bpf.MusterMapSlots], innerSpec(other.spec), image.Bytes)
}

// TestNoGap hammers a file that both rulesets deny while programs are replaced and rulesets swapped.
func TestNoGap(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	write(t, d+"/g", "x", 0o644)
	both := []*enforce.Ruleset{
		rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f")),
		rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/g"),
			rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPattern, d+"/f*")),
	}
	g.apply(t, enforce.StepPublish{Ruleset: both[0]})
	c, in, lines := startChild(t, "hammer "+d+"/f")
	for i := range 10 {
		g.apply(t, enforce.StepPublish{Ruleset: both[i%2]})
		if i%5 == 4 {
			if err := os.Remove(g.pins.linkPath(bpf.MusterProgPathUnlink)); err != nil {
				t.Fatal(err)
			}
			g.apply(t, enforce.StepAttach{Reason: "test"})
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	var opened, tried int
	if _, err := fmt.Sscan(lines.Text(), &opened, &tried); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d attempts let in", opened, tried)
	if opened > 0 || tried < 100 {
		t.Errorf("%d of %d attempts let in", opened, tried)
	}
}

// TestContract is what every backend keeps.
func TestContract(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	alone(t)
	backend := func(t *testing.T) enforce.Backend {
		b, err := New(Config{Root: testRoot, RingBytes: 1 << 18})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	enforcetest.Contract(t, backend, backend)
}

// TestManyRules loads 1,000 and 10,000 exact paths.
func TestManyRules(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, n := range []int{1000, 10000} {
		var list []enforce.Rule
		for i := range n {
			list = append(list, block(fmt.Sprintf("%s/some/directory-%d/file-%d", d, i%100, i)))
		}
		last := list[n-1].Objects[0]
		write(t, last, "x", 0o644)
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
		begin := time.Now()
		g.apply(t, enforce.StepPublish{Ruleset: rs})
		image, err := published(g.maps[bpf.MusterMapSlots])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d rules: image of %d KiB, published in %s", n, len(image)>>10, time.Since(begin))
		want(t, try(t, "read "+last, "stat "+last), "EACCES", "ok")
		g.seen(t)
		if s := g.observe(t, rs).Subjects[enforce.Host]; !s.Intact {
			t.Errorf("%+v", s)
		}
	}
}
