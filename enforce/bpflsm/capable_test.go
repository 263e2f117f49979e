// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

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
	if err := c.Run(); err != nil {
		return err
	}
	os.Exit(0)
	return nil
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
	want(t, g.seen(t), "capable CAP_SYS_CHROOT denied by p00000", "capable CAP_NET_RAW audited-by p00001", "capable CAP_SYS_TIME denied by p00002")
	want(t, tryAs(t, free, "chroot /", "raw", "clock"), "ok", "ok", "EPERM")
	g.seen(t)
	// The own user namespace of a process gives it nothing back.
	want(t, tryAs(t, bound, "userns", "chroot /"), "ok", "EPERM")
	g.seen(t)

	list := rules(enforce.ModeEnforce, enforce.PostureAudit, capability(policies.ActionAllow, "sys_chroot", bound))
	list.Postures.Capabilities = enforce.PostureBlock
	g.apply(t, enforce.StepPublish{Ruleset: list})
	want(t, tryAs(t, bound, "chroot /", "raw"), "ok", "EPERM")
	if got := g.seen(t); len(got) == 0 || got[len(got)-1] != "capable CAP_NET_RAW denied by posture" {
		t.Errorf("events %q", got)
	}
	want(t, tryAs(t, free, "chroot /", "raw"), "ok", "ok")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeAudit, enforce.PostureAudit, capability(policies.ActionBlock, "sys_chroot"))})
	g.seen(t)
	want(t, tryAs(t, bound, "chroot /"), "ok")
	want(t, g.seen(t), "capable CAP_SYS_CHROOT would-deny by p00000")
}

// TestCapabilityProbes denies what only asks, and says nothing of it.
func TestCapabilityProbes(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		capability(policies.ActionBlock, "sys_admin"), capability(policies.ActionAudit, "sys_resource"))})
	// Every exec and every mapping asks whether it might use the memory kept for CAP_SYS_ADMIN.
	want(t, try(t, "map-anonymous"), "ok")
	want(t, g.seen(t))
}
