// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// anonymous makes memory executable that no file stands behind: map KIND or protect KIND; or of a memfd.
func anonymous(kind string) error {
	fd, flags := -1, unix.MAP_PRIVATE|unix.MAP_ANON
	protection := unix.PROT_READ | unix.PROT_EXEC
	if strings.HasSuffix(kind, "-memfd") {
		var err error
		if fd, err = unix.MemfdCreate("code", 0); err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, 4096); err != nil {
			return err
		}
		flags = unix.MAP_SHARED
	}
	if strings.HasPrefix(kind, "protect") {
		protection = unix.PROT_READ
	}
	m, err := unix.Mmap(fd, 0, 4096, protection, flags)
	if err == nil && protection == unix.PROT_READ {
		err = unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
	}
	return err
}

func presetRule(action policies.Action, name string) enforce.Rule {
	return rule(policies.ClassPreset, action, policies.ObjectPreset, name)
}

func TestPresets(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	publish := func(list ...enforce.Rule) {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
		g.taken(t)
	}
	shared := copySelf(t, "/dev/shm/muster-program")
	t.Cleanup(func() { _ = os.Remove(shared) })
	named := copySelf(t, d+"/named")
	publish(presetRule(policies.ActionBlock, "filelessExec"))
	want(t, try(t, "memfd", "run "+shared+" stat /", "run "+named+" stat /", "execute-anonymous map"), "EACCES", "EACCES", "ok", "ok")
	want(t, g.seen(t), "exec memfd:program denied by p00000", "exec "+shared+" denied by p00000")
	publish(presetRule(policies.ActionAudit, "filelessExec"))
	want(t, try(t, "memfd"), "ok")
	want(t, g.seen(t), "exec memfd:program audited-by p00000")

	publish(presetRule(policies.ActionBlock, "anonymousMapExec"))
	want(t, try(t, "execute-anonymous map", "execute-anonymous protect", "execute-anonymous map-memfd", "execute-anonymous protect-memfd",
		"map "+named, "map-anonymous", "memfd", "run "+named+" stat /"), "EACCES", "EACCES", "EACCES", "EACCES", "ok", "ok", "ok", "ok")
	want(t, g.seen(t), "map  denied by p00000", "map  denied by p00000", "map memfd:code denied by p00000", "map memfd:code denied by p00000")

	environ, status := fmt.Sprintf("/proc/%d/environ", os.Getpid()), fmt.Sprintf("/proc/%d/status", os.Getpid())
	thread := fmt.Sprintf("/proc/%d/task/%d/environ", os.Getpid(), os.Getpid())
	publish(presetRule(policies.ActionBlock, "protectEnv"))
	want(t, try(t, "read "+environ, "read "+thread, "read "+status, "read /proc/self/environ", "read /proc/thread-self/environ", "read /proc/uptime"),
		"EACCES", "EACCES", "ok", "ok", "ok", "ok")
	want(t, g.seen(t), "open "+environ+" denied by p00000", "open "+thread+" denied by p00000")
	// Another procfs shows the same.
	write(t, d+"/proc/x", "", 0o644)
	if err := os.Remove(d + "/proc/x"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", d+"/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	want(t, try(t, "read "+d+environ), "EACCES")
	if err := unix.Unmount(d+"/proc", 0); err != nil {
		t.Fatal(err)
	}
	publish(presetRule(policies.ActionBlock, "protectProc"), presetRule(policies.ActionAudit, "protectEnv"))
	want(t, try(t, "read "+environ, "read "+status, "list /proc/1", "read /proc/self/status", "list /proc"), "EACCES", "EACCES", "EACCES", "ok", "ok")
	if got := g.taken(t); len(got) != 3 || len(got[0].Audits) != 1 || len(got[1].Audits) != 0 {
		t.Errorf("events %+v", got)
	}
	publish(block(d + "/nothing"))
	want(t, try(t, "memfd", "read "+environ, "execute-anonymous map"), "ok", "ok", "ok")
}
