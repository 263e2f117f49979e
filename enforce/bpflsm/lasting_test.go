// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// onDisk is a directory on a filesystem whose inodes outlive a boot.
func onDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var", "muster-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// rotated publishes a Block of a log and has its rotator move it away: the old file is known by its mark only.
func rotated(t *testing.T, g *guard, d string, more ...enforce.Rule) *enforce.Ruleset {
	t.Helper()
	write(t, d+"/log", "x", 0o644)
	rotator := copySelf(t, d+"/rotator")
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, append(more, block(d+"/log"),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/log", rotator))...)
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	want(t, tryAs(t, rotator, "rename "+d+"/log "+d+"/log.1"), "ok")
	want(t, try(t, "read "+d+"/log.1"), "EACCES")
	return rs
}

// TestMarksOutliveBoot takes everything out of the kernel, as a boot does, and puts back what was kept.
func TestMarksOutliveBoot(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := onDisk(t)
	rs := rotated(t, g, d)
	kept, known, err := g.Keep()
	if err != nil || !known || !strings.Contains(string(kept), d+"/log") {
		t.Fatalf("kept %s, %v", kept, err)
	}
	boot := func(kept []byte) {
		g.apply(t, enforce.StepDetach{})
		if kept != nil {
			if err := g.Restore(kept); err != nil {
				t.Fatal(err)
			}
		}
		g.apply(t, enforce.StepAttach{})
		g.apply(t, enforce.StepPublish{Ruleset: rs})
	}
	boot(nil)
	want(t, try(t, "read "+d+"/log.1"), "ok") // the control: nothing else knows the file
	boot(kept)
	want(t, try(t, "read "+d+"/log.1"), "EACCES")
	if again, known, err := g.Keep(); err != nil || !known || string(again) != string(kept) {
		t.Errorf("kept again %s, %v, before %s", again, err, kept)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/other"))})
	if again, known, err := g.Keep(); err != nil || !known || again != nil {
		t.Errorf("kept of a rule that is gone: %s, %v", again, err)
	}
}

// TestUpgradeToAnotherLayout leaves the pins of an agent whose maps have another layout: what processes came from, and
// which files had a protected name, is known to the next agent.
func TestUpgradeToAnotherLayout(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := onDisk(t)
	write(t, d+"/secret", "x", 0o644)
	interpreter := copySelf(t, d+"/interpreter")
	write(t, d+"/script", "#!"+interpreter+"\n", 0o755)
	rs := rotated(t, g, d, block(d+"/secret", d+"/script"))
	command := strings.Join([]string{"wait", "read " + d + "/secret", "wait", "read " + d + "/secret"}, "\n")
	c, in, lines := startCommand(t, "stat /\n"+command, d+"/script")
	defer func() { _ = c.Wait() }()
	defer in.Close()
	next := func() string {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		lines.Scan() // go
		lines.Scan()
		return lines.Text()
	}
	if got := next(); got != "EACCES" {
		t.Fatalf("the script reads with %s", got)
	}

	if err := os.Rename(g.pins.dir, filepath.Join(testRoot, "v-of-another-layout")); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g.apply(t, enforce.StepAttach{})
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	if others, err := g.pins.others(); err != nil || len(others) != 0 {
		t.Errorf("pins of the other layout: %v %v", others, err)
	}
	if got := next(); got != "EACCES" {
		t.Errorf("the script reads with %s after the upgrade", got)
	}
	want(t, try(t, "read "+d+"/log.1", "read "+d+"/secret"), "EACCES", "ok")
}

// TestReadLasting reads a table of mounts.
func TestReadLasting(t *testing.T) {
	t.Parallel()
	table := `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 254:1 /srv /mnt/bound rw - ext4 /dev/vda1 rw
24 22 0:30 / /home rw - btrfs /dev/vdb rw
25 22 8:17 / /mnt/with\040space rw - xfs /dev/sdb1 rw
26 22 8:33 / /hidden rw - ext4 /dev/sdc1 rw
27 22 0:44 / /net rw - nfs4 server:/ rw
broken
`
	mounts, err := readMounts(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	found := readLasting(mounts, func(m mountPoint) string {
		return map[string]string{"/": "root", "/mnt/with space": "space", "/net": "net"}[m.at]
	})
	if len(found) != 2 || found[254<<20|1] != "root" || found[8<<20|17] != "space" {
		t.Errorf("found %v", found)
	}
	if _, err := readMounts(strings.NewReader("1 1 x:y / / rw - ext4 a rw")); err == nil {
		t.Error("a device that is no number is taken")
	}
}
