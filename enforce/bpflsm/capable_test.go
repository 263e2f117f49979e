// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// probeOnly asks the kernel whether this process could have a capability, which uses none: the kernel looks at
// CAP_SYS_PTRACE so when another user's memory map is listed.
func probeOnly() error {
	// The limit on locked memory is looked at with a probe of CAP_IPC_LOCK; there is room enough without it.
	return unix.Mlock(make([]byte, 4096))
}

// apartAsUser gives the process a user namespace of its own, in which it has every capability. A process of
// several threads cannot have one, so that it starts again as one that has.
func apartAsUser() error {
	if os.Getenv("APART") != "" {
		return nil
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "APART=1")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
	}
	c.Stdout = os.Stdout
	err := c.Run()
	os.Exit(0)
	return err
}

func capability(action policies.Action, name string, sources ...string) enforce.Rule {
	return rule(policies.ClassCapabilities, action, policies.ObjectCapability, name, sources...)
}

func TestCapabilities(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	bound, free := copySelf(t, d+"/bound"), copySelf(t, d+"/free")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		capability(policies.ActionBlock, "sys_chroot", bound), capability(policies.ActionAudit, "net_raw", bound),
		capability(policies.ActionBlock, "sys_time"))})
	want(t, tryAs(t, bound, "chroot /", "raw", "clock"), "EPERM", "ok", "EPERM")
	want(t, g.seen(t), "capable sys_chroot denied by p00000", "capable net_raw audited-by p00001", "capable sys_time denied by p00002")
	want(t, tryAs(t, free, "chroot /", "raw", "clock"), "ok", "ok", "EPERM")
	g.seen(t)
	// The own user namespace of a process gives it nothing back.
	want(t, tryAs(t, bound, "userns", "chroot /"), "ok", "EPERM")
	g.seen(t)

	list := rules(enforce.ModeEnforce, enforce.PostureAudit, capability(policies.ActionAllow, "sys_chroot", bound))
	list.Postures.Capabilities = enforce.PostureBlock
	g.apply(t, enforce.StepPublish{Ruleset: list})
	want(t, tryAs(t, bound, "chroot /", "raw"), "ok", "EPERM")
	if got := g.seen(t); len(got) == 0 || got[len(got)-1] != "capable net_raw denied by posture" {
		t.Errorf("events %q", got)
	}
	want(t, tryAs(t, free, "chroot /", "raw"), "ok", "ok")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeAudit, enforce.PostureAudit, capability(policies.ActionBlock, "sys_chroot"))})
	g.seen(t)
	want(t, tryAs(t, bound, "chroot /"), "ok")
	want(t, g.seen(t), "capable sys_chroot would-deny by p00000")
}

// TestCapabilityProbes denies what only asks, and says nothing of it.
func TestCapabilityProbes(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		capability(policies.ActionAudit, "sys_admin"), capability(policies.ActionBlock, "sys_ptrace"))})
	// Every exec and every mapping asks for CAP_SYS_ADMIN's reserve of memory.
	want(t, try(t, "probe-only"), "ok")
	want(t, g.seen(t))
}
