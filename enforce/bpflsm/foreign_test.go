// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/test/vm"
)

// ofKind are the differences of one kind between the ruleset and what is in the kernel now.
func (g *guard) ofKind(t *testing.T, kind enforce.DriftKind, rs *enforce.Ruleset) []enforce.Drift {
	t.Helper()
	found := enforce.Diff(enforce.DiffInput{Want: []*enforce.Ruleset{rs}, Have: g.observe(t, rs), Now: time.Now()})
	return slices.DeleteFunc(found, func(d enforce.Drift) bool { return d.Kind != kind })
}

// loadStranger loads a program that permits everything.
func loadStranger(t *testing.T, spec ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	spec.License = "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestForeign: somebody else's LSM program is drift of kind foreign, which repairs leave alone; a program of another
// type on the same path is none.
func TestForeign(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block("/nothing/there"))
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	strangers := func() (names []string) {
		for _, d := range g.ofKind(t, enforce.DriftForeign, rs) {
			if strings.HasPrefix(d.Observed, "stranger") { // what another test detached may not be gone yet
				names = append(names, fmt.Sprintf("%s %s: %s, repairable %v", d.Severity, d.Declared, d.Observed, d.Repairable()))
			}
		}
		return names
	}
	want(t, strangers())
	tracing := loadStranger(t, ebpf.ProgramSpec{Name: "stranger_sees", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "security_file_open"})
	watching, err := link.AttachTracing(link.TracingOptions{Program: tracing})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Close()
	want(t, strangers())
	program := loadStranger(t, ebpf.ProgramSpec{Name: "stranger", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open"})
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	expected := fmt.Sprintf("low nothing of ours: stranger (program %d), repairable false", id)
	want(t, strangers(), expected) // loaded is enough
	attached, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	want(t, strangers(), expected)
	g.apply(t, enforce.StepAttach{Reason: "test"})
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	want(t, strangers(), expected)
	if now, err := attached.Info(); err != nil || now.Program != id {
		t.Errorf("the stranger's link holds %+v, %v", now, err)
	}
}

// asleep waits until a process of one thread waits for something.
func asleep(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " S ") {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it never slept")
		case <-tick.C:
		}
	}
}

// TestUnlabelled: a thread without a label is drift of kind unlabelled until the programs are attached again, which
// labels what is there, or until it does something that is judged.
func TestUnlabelled(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block("/nothing/there"))
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	idle := exec.CommandContext(t.Context(), "cat")
	in, lines := startPiped(t, idle)
	defer func() { _ = idle.Wait() }()
	defer in.Close()
	if _, err := in.Write([]byte("x\n")); err != nil || !lines.Scan() {
		t.Fatalf("cat: %v", err)
	}
	asleep(t, idle.Process.Pid) // in its second read, which was judged when it began
	unlabelled := func() (observed []string) {
		for _, d := range g.ofKind(t, enforce.DriftUnlabelled, rs) {
			observed = append(observed, d.Severity+" "+d.Observed)
		}
		return observed
	}
	want(t, unlabelled())
	pidfd, err := unix.PidfdOpen(idle.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := g.maps[bpf.MusterMapLabels].Delete(int32(pidfd)); err != nil {
		t.Fatal(err)
	}
	want(t, unlabelled(), "medium 1 unclassified")
	g.apply(t, enforce.StepAttach{Reason: "test"})
	want(t, unlabelled())
}
