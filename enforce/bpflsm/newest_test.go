// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// newestKernel is the lab's newest line. All tests of this package pass there (KERNEL=7); each run has time for those
// that load every program and ask each class once.
const newestKernel = "7"

func TestInNewestVM(t *testing.T) {
	if vm.Inside() {
		return
	}
	if slices.Contains(vm.Kernels(), newestKernel) {
		t.Skip("TestInVM runs every test there")
	}
	vm.RunTests(t, vm.Options{Kernel: newestKernel, LSM: vm.BPF, TestLimit: 20 * time.Minute}, ".",
		"-test.run=^(TestUsable|TestVerifier|TestEachClass)$")
}

// oldestKernel has programs of its own (docs/decisions/0022-linux-5.10.md).
const oldestKernel = "5.10"

func TestInOldestVM(t *testing.T) {
	if vm.Inside() {
		return
	}
	vm.RunTests(t, vm.Options{Kernel: oldestKernel, LSM: vm.BPF, TestLimit: 20 * time.Minute}, ".", "-test.run=^("+olderTests+")$")
}

// olderTests are those of the oldest line: every program, each class that is there, what a change of names does, a dry run.
const olderTests = "TestUsable|TestVerifier|TestEachClass|TestOperations|TestMarks|TestDryRun"

// classTry is what a rule denies, and what it leaves.
type classTry struct{ does, denied, permits string }

// TestEachClass has a rule of every class in one ruleset, flows by egress, and tries for each what it denies, or tells,
// and what it does not.
func TestEachClass(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, port, _ := strings.Cut(server.Addr().String(), ":")
	farMachine(t)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/secret", "x", 0o644)
	write(t, d+"/other", "x", 0o644)
	bad, fine := copySelf(t, d+"/bad"), copySelf(t, d+"/fine")
	shared := copySelf(t, "/dev/shm/muster-program")
	t.Cleanup(func() { _ = os.Remove(shared) })
	rules := []enforce.Rule{
		block(d + "/secret"),
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, bad),
		protocol(policies.ActionBlock, "icmp"),
		capability(policies.ActionBlock, "sys_time"),
		presetRule(policies.ActionBlock, "filelessExec"),
		domain(policies.ActionBlock, "blocked.example"),
		egress(policies.ActionBlock, farAddress+"/32", "UDP", 9, 9),
		onCalls(d+"/other", "openat", "fchmodat"),
	}
	tries := []classTry{
		{"read " + d + "/secret", "EACCES", "stat " + d + "/secret"},
		{"run " + bad + " stat /", "EACCES", "run " + fine + " stat /"},
		{"socket 2 2 1", "EACCES", "tcp " + port},
		{"clock", "EPERM", "chroot /"},
		{"run " + shared + " stat /", "EACCES", "run " + fine + " stat /"},
		{"ask blocked.example udp", "EACCES", "ask open.example udp"},
		{"flow udp " + farAddress + ":9", "EPERM", "flow udp " + farAddress + ":10"},
	}
	g.apply(t, enforced(rules...))
	g.taken(t)
	for _, try := range tries {
		expect(t, "/proc/self/exe", map[string]string{try.does: try.denied, try.permits: "ok"})
		if seen := g.seen(t); len(seen) != 1 || !strings.Contains(seen[0], " denied by p0000") {
			t.Errorf("%s: events %q", try.does, seen)
		}
	}
	expect(t, "/proc/self/exe", map[string]string{"read " + d + "/other": "ok", "chmod " + d + "/other": "ok"})
	told := g.told(t)
	slices.Sort(told)
	if len(told) < 2 || !slices.Contains(told, "openat "+d+"/other") || !strings.Contains(strings.Join(told, "\n"), "fchmodat") {
		t.Errorf("calls told: %q", told)
	}
}
