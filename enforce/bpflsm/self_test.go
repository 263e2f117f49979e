// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/test/vm"
)

// A map that the programs share and self-protection does not know could be written by anybody.
func TestSelfKnowsEveryMap(t *testing.T) {
	t.Parallel()
	spec, err := bpf.LoadMuster()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, ins := range spec.Programs[bpf.MusterProgSelfMap].Instructions {
		if ins.IsLoadFromMap() {
			known[ins.Reference()] = true
		}
	}
	for _, name := range mapNames(spec) {
		if !known[name] {
			t.Errorf("self_map_is_own in bpf/include/self_map.h leaves out %s", name)
		}
	}
}

// A program is known as the agent's by the maps that it works on.
func TestSelfKnowsEveryProgram(t *testing.T) {
	t.Parallel()
	spec, err := bpf.LoadMuster()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range attached {
		if spec.Programs[p.name] == nil {
			continue // 5.10's, where self-protection is not
		}
		known := false
		for _, ins := range spec.Programs[p.name].Instructions {
			known = known || ins.IsLoadFromMap() && slices.Contains([]string{
				bpf.MusterMapConfig, bpf.MusterMapCounters, bpf.MusterMapLabels, bpf.MusterMapMarks, bpf.MusterMapSelfMarks, bpf.MusterMapClearing,
			}, ins.Reference())
		}
		if !known {
			t.Errorf("%s uses none of the maps that self_program_is_own in bpf/include/self_map.h looks for", p.name)
		}
	}
}

// Who is refused a file of the agent's is told why, where self-protection is pinned.
func TestSelfRecognition(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	refused := fmt.Errorf("lock: %w", unix.EACCES)
	if err := Recognition(root, refused); !errors.Is(err, unix.EACCES) || errors.Is(err, errNotRecognised) {
		t.Errorf("without self-protection: %v", err)
	}
	pin := pins{root: root, dir: filepath.Join(root, "v1")}.linkPath(bpf.MusterProgSelfOpen)
	if err := os.MkdirAll(filepath.Dir(pin), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, pin, "", 0o600)
	if err := Recognition(root, refused); !errors.Is(err, errNotRecognised) || !errors.Is(err, unix.EACCES) {
		t.Errorf("with it: %v", err)
	}
	if err := Recognition(root, unix.ENOSPC); !errors.Is(err, unix.ENOSPC) || errors.Is(err, errNotRecognised) {
		t.Errorf("another error: %v", err)
	}
}

// Each link on the way to a configured file decides what it names.
func TestSelfLinks(t *testing.T) {
	t.Parallel()
	d, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d+"/real/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d+"/real/deep/file", "", 0o600)
	for link, target := range map[string]string{"first": d + "/second", "second": "real", "real/deep/up": "../deep/file"} {
		if err := os.Symlink(target, filepath.Join(d, link)); err != nil {
			t.Fatal(err)
		}
	}
	got := places{}
	got.add(bpf.MusterPlacePLACE_RUN, d+"/first/deep/up", d+"/nothing")
	want := places{
		d + "/real/deep/file": bpf.MusterPlacePLACE_RUN, d + "/first": bpf.MusterPlacePLACE_TREE, d + "/second": bpf.MusterPlacePLACE_TREE,
		d + "/real/deep/up": bpf.MusterPlacePLACE_TREE,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A directory of units that is not there is kept from being made, and one that holds a link to the unit from being moved.
func TestSelfUnitDirectories(t *testing.T) {
	t.Parallel()
	d, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wants := d + "/etc/systemd/system/sysinit.target.wants"
	if err := os.MkdirAll(wants, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", wants+"/musterd.service"); err != nil {
		t.Fatal(err)
	}
	got := places{}
	got.addUnits(bpf.MusterPlacePLACE_UNITS, d+"/etc/systemd", "musterd.service")
	got.addUnits(bpf.MusterPlacePLACE_UNITS, d+"/usr/lib/systemd", "musterd.service")
	want := places{
		d: bpf.MusterPlacePLACE_ABSENT, d + "/etc/systemd": bpf.MusterPlacePLACE_UNITS | bpf.MusterPlacePLACE_ABOVE,
		wants: bpf.MusterPlacePLACE_ABOVE,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestSelfUnit(t *testing.T) {
	t.Parallel()
	who := &selfIdentity{unit: "musterd.service"}
	s := who.settings()
	if s.Unit[0] != 0x2e6472657473756d || s.Unit[1] != 0x0065636976726573 || s.UnitMask[1] != 0x00ffffffffffffff || s.UnitMask[2] != 0 ||
		s.UnitExact[1] != 0xffffffffffffffff || s.UnitExact[2] != 0 {
		t.Errorf("%x %x", s.Unit, s.UnitMask)
	}
}

// selfGuard is an agent in a process of its own, which this one launches as process 1 would.
type selfGuard struct {
	program, root, tree, group string
	command                    *exec.Cmd
	in                         io.WriteCloser
	lines                      *bufio.Scanner
}

// start launches the agent; how is more that it is told.
func (g *selfGuard) start(t *testing.T, how ...string) {
	t.Helper()
	group, err := os.Open(g.group)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	g.command = exec.Command(g.program)
	g.command.Env = []string{probeVariable + "=" + strings.Join(append([]string{"self-agent", g.root, g.tree}, how...), " ")}
	g.command.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if g.in, err = g.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.command.Start(); err != nil {
		t.Fatal(err)
	}
	g.lines = bufio.NewScanner(out)
	g.lines.Buffer(nil, 1<<20)
	if g.lines.Scan(); !strings.HasPrefix(g.lines.Text(), "ready") {
		rest := g.lines.Text()
		for g.lines.Scan() {
			rest += "\n" + g.lines.Text()
		}
		t.Fatalf("agent: %s", rest)
	}
	t.Logf("agent %s", g.lines.Text())
}

// launch does one operation in a process of the agent's executable, started in a control group as process 1 would.
func (g *selfGuard) launch(t *testing.T, group, operation string) string {
	t.Helper()
	at, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	c := exec.Command(g.program)
	c.Env = []string{probeVariable + "=" + operation}
	c.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(at.Fd())}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (g *selfGuard) order(t *testing.T, what string) {
	t.Helper()
	if _, err := io.WriteString(g.in, what+"\n"); err != nil {
		t.Fatal(err)
	}
	if g.lines.Scan(); g.lines.Text() != "done <nil>" {
		t.Errorf("agent, told to %s: %s", what, g.lines.Text())
	}
}

// end kills the agent, as its launcher may.
func (g *selfGuard) end(t *testing.T) {
	t.Helper()
	if err := g.command.Process.Kill(); err != nil {
		t.Errorf("the launcher's SIGKILL: %v", err)
	}
	_ = g.command.Wait()
}

// leave makes the machine ready for another test.
func (g *selfGuard) leave(t *testing.T) {
	t.Helper()
	if g.command != nil && g.command.ProcessState == nil {
		g.order(t, "off")
		g.end(t)
	}
	_ = os.RemoveAll(g.root)
	_ = unix.Mount("none", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	mountFilesystem(t, "bpf", "/sys/fs/bpf", unix.BPF_FS_MAGIC)
	mountFilesystem(t, "cgroup2", "/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC)
}

// mountFilesystem does so where it is not mounted any more.
func mountFilesystem(t *testing.T, kind, at string, magic int64) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err == nil && fs.Type == magic {
		return
	}
	if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
		t.Errorf("mount %s: %v", at, err)
	}
}

func (g *selfGuard) fill(act string) string {
	return strings.NewReplacer("PROGRAM", g.program, "ROOT", g.root, "PINS", newPinsDir(g.root), "TREE", g.tree, "GROUP", g.group,
		"PID", strconv.Itoa(g.command.Process.Pid)).Replace(act)
}

func newPinsDir(root string) string {
	spec, err := bpf.LoadMuster()
	if err != nil {
		return ""
	}
	return newPins(root, spec).dir
}

// resisted are acts of a root process outside of the agent's service, and the kernel's answer. When self-protection is
// off each ends in another way, most in success; what does damage comes last.
var resisted = []struct{ act, answer string }{
	{"map-pinned PINS/map_config", "EPERM"},
	{"map-read PINS/map_config", "EPERM"},
	{"map-read PINS/map_slots", "EPERM"},
	{"map-by-id config", "EPERM"},
	{"map-by-id places", "EPERM"},
	{"map-by-id image", "EPERM"},
	{"map-by-id fold", "EPERM"},
	{"program-by-id file_open", "EPERM"},
	{"program-by-id self_open", "EPERM"},
	{"link-update PINS/link_packet_out", "EPERM"},
	{"modify-return", "EPERM"},
	{"answer-first PINS/map_config", "EPERM"},
	{"write-user", "EINVAL"}, // the verifier knows no such function then
	{"pin-own PINS/map_other", "EACCES"},
	{"mkdir ROOT/v000000000000", "EACCES"},
	{"memory PID", "EACCES"},
	{"vm-write PID", "EPERM"},
	{"take-descriptor PID", "EPERM"},
	{"limit PID", "EPERM"},
	{"kill PID SIGSTOP", "EPERM"},
	{"write TREE/state", "EACCES"},
	{"truncate TREE/state", "EACCES"},
	{"chmod TREE/state", "EACCES"},
	{"chown TREE/state", "EACCES"},
	{"set-times TREE/state", "EACCES"},
	{"by-handle TREE/state", "EACCES"},
	{"write /proc/PID/rootTREE/state", "EACCES"},
	{"way uring-open-write TREE/state TREE/..", "EACCES"},
	{"way uring-unlink TREE/third TREE/..", "EACCES"},
	{"way uring-rename-over TREE/third TREE/..", "EACCES"},
	{"way exchange TREE/third TREE/..", "EACCES"},
	{"way fchownat-empty TREE/third TREE/..", "EACCES"},
	{"way tmpfile-in TREE/third TREE/..", "EACCES"},
	{"way bind-unix TREE/socket TREE/..", "EACCES"},
	{"lock TREE/state", "EACCES"},
	{"lease TREE/state", "EACCES"},
	{"overlay-write TREE state MNT", "EACCES"},
	{"overlay-chmod TREE state MNT", "EACCES"},
	{"link TREE/state TREE/../elsewhere", "EACCES"},
	{"create TREE/other", "EACCES"},
	{"mkdir TREE/directory", "EACCES"},
	{"symlink /x TREE/symlink", "EACCES"},
	{"mknod TREE/fifo", "EACCES"},
	{"write-by-bind TREE MNT", "EACCES"},
	{"rename TREE/state TREE/moved", "EACCES"},
	{"unlink TREE/second", "EACCES"},
	{"mount-over TREE", "EACCES"},
	{"mount-over /sys/fs", "EACCES"},
	{"bind-over MNT TREE", "EACCES"},
	{"switch /proc/sys/kernel/ftrace_enabled", "EACCES"},
	{"mount-shared TREE", "EACCES"},
	{"rename TREE TREE2", "EACCES"},
	{"chmod PROGRAM", "EACCES"},
	{"create /etc/systemd/system/musterd.service", "EACCES"},
	{"mkdir /etc/systemd/system/musterd.service.d", "EACCES"},
	{"symlink /x /etc/systemd/system/basic.target.wants/musterd.service", "EACCES"},
	{"mkdir /etc/systemd/system/service.d", "EACCES"},
	{"mount-over /etc/systemd/system", "EACCES"},
	{"mount-over /etc/systemd/system.attached", "EACCES"},
	{"symlink /x /etc/systemd/system.control", "EACCES"},
	{"symlink /x /usr/local/lib/systemd", "EACCES"},
	{"rename /etc/systemd/system/held.target.wants /etc/systemd/system/x.wants", "EACCES"},
	{"rename /etc/systemd/system.attached /etc/systemd/x", "EACCES"},
	{"rename /etc/systemd /etc/systemd2", "EACCES"},
	{"write GROUP/cgroup.procs", "EACCES"},
	{"write GROUP/cgroup.freeze", "EACCES"},
	{"mkdir GROUP/../other/musterd.service", "EACCES"},
	{"mkdir-deep GROUP/../other/deep musterd.service", "EACCES"},
	{"ptrace PID", "EPERM"},
	{"rename PINS/link_file_open PINS/link_x", "EACCES"},
	{"unlink PINS/link_capable", "EACCES"},
	{"link-by-id", "EPERM"},
	{"link-detach PINS/link_packet_out", "EPERM"},
	{"move-mount /sys/fs/bpf MNT", "EACCES"}, // what is shared is not moved in any case: EINVAL
	{"move-tree /sys/fs/bpf MNT", "EACCES"},
	{"move-beside /sys/fs/bpf", "EACCES"},
	{"unmount-tree /sys/fs MNT", "EACCES"},
	{"unmount-copy /sys/fs/bpf", "EACCES"},
	{"unmount /sys/fs/bpf", "EACCES"},
	{"kill PID SIGKILL", "EPERM"},
}

// permitted acts are nobody's business while self-protection is on.
var permitted = []string{
	"kill PID SIGHUP", "stat TREE/state", "read TREE/state", "create /etc/systemd/system/other.service",
	"unlink /etc/systemd/system/other.service", "mkdir GROUP/../other/another.service", "rmdir GROUP/../other/another.service",
	"mount-over MNT", "create MNT/file", "unlink MNT/file", "ptrace OWN", "bind-away /sys MNT", "bind-away /sys/fs/bpf MNT", "bind-away TREE MNT",
	"create /etc/systemd/system.conf.new", "rename /etc/systemd/system.conf.new /etc/systemd/system.conf.old",
	"mkdir /usr/lib/systemd/system/service.d", "mkdir /usr/local/lib/other", "rmdir /usr/local/lib/other",
}

// TestSelf tries every way as root, with its control.
func TestSelf(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	alone(t)
	d := t.TempDir()
	g := &selfGuard{root: testRoot + "-self", tree: d + "/tree", program: copySelf(t, d+"/musterd"), group: "/sys/fs/cgroup/system.slice/musterd.service"}
	elsewhere := "/sys/fs/cgroup/elsewhere.slice/musterd.service"
	for _, dir := range []string{
		g.tree, d + "/mnt", "/etc/systemd/system/basic.target.wants", "/etc/systemd/system/held.target.wants", "/etc/systemd/system.attached",
		"/usr/lib/systemd/system", "/usr/local/lib", g.group, filepath.Dir(g.group) + "/other", elsewhere,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, g.tree+"/state", "x", 0o600)
	write(t, g.tree+"/second", "x", 0o600)
	write(t, g.tree+"/third", "x", 0o600)
	write(t, d+"/spare", "x", 0o600)
	if err := os.Symlink("/x", "/etc/systemd/system/held.target.wants/musterd.service"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.leave(t) })
	if err := unix.Mount("none", "/sys/fs/bpf", "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	g.start(t)
	g.order(t, "publish")
	g.order(t, "observe")
	sleeper, in, _ := startChild(t, "hammer /nothing")
	fill := func(act string) string {
		return strings.NewReplacer("MNT", d+"/mnt", "OWN", strconv.Itoa(sleeper.Process.Pid)).Replace(g.fill(act))
	}
	probe := func(t *testing.T, act string) string {
		t.Helper()
		return strings.Join(try(t, fill(act)), "; ")
	}
	for _, r := range resisted {
		if got := probe(t, r.act); got != r.answer {
			t.Errorf("%s: %s, want %s", r.act, got, r.answer)
		}
	}
	for _, act := range permitted {
		if got := probe(t, act); got != "ok" {
			t.Errorf("%s: %s", act, got)
		}
	}
	_ = probe(t, "sigio PID SIGKILL")
	g.order(t, "write")
	g.order(t, "observe")
	g.order(t, "attempts")
	_ = in.Close()
	_ = sleeper.Wait()

	// Its executable does not make an agent: who was launched is one, and nobody else.
	if got := probe(t, "run PROGRAM map-pinned PINS/map_config"); got != "EPERM" {
		t.Errorf("an impostor: %s", got)
	}
	// In the agent's unit it does; in a group of the same name elsewhere it does not.
	for group, want := range map[string]string{g.group: "ok", elsewhere: "EPERM"} {
		if got := g.launch(t, group, "map-pinned "+newPinsDir(g.root)+"/map_config"); got != want {
			t.Errorf("launched in %s: %s, want %s", group, got, want)
		}
	}
	// There it looks what its configuration names: what was not told before is another one's.
	for name, known := range map[string]bool{g.tree: true, d + "/mnt": false} {
		if got := g.launch(t, g.group, "known-places "+g.root+" "+name); (got == "ok") != known {
			t.Errorf("%s is known: %s", name, got)
		}
	}
	g.order(t, "overfull")
	g.order(t, "on")
	g.order(t, "observe")
	g.end(t)
	if got := probe(t, "unlink PINS/link_file_open"); got != "EACCES" {
		t.Errorf("without an agent: %s", got)
	}
	g.start(t)
	g.order(t, "observe")
	g.order(t, "write")
	if got := probe(t, "map-pinned PINS/map_config"); got != "EPERM" {
		t.Errorf("after a restart: %s", got)
	}
	g.end(t)
	g.start(t, "down")
	if got := probe(t, "map-read PINS/map_config"); got != "ok" {
		t.Errorf("stood down before anything was attached: %s", got)
	}
	g.end(t)
	g.start(t)
	g.order(t, "off")
	if left, _ := filepath.Glob(newPinsDir(g.root) + "/link_" + selfPrefix + "*"); len(left) > 0 {
		t.Errorf("off, and still attached: %s", left)
	}
	for _, r := range resisted {
		got := probe(t, r.act)
		t.Logf("control: %s: %s", r.act, got)
		if got == r.answer || !slices.Contains([]string{"ok", "EFAULT", "EINVAL", "ENOENT"}, got) {
			t.Errorf("control: %s: %s", r.act, got)
		}
		switch r.act {
		case "kill PID SIGSTOP":
			_ = g.command.Process.Signal(unix.SIGCONT)
		case "rename /etc/systemd/system.attached /etc/systemd/x":
			_ = os.Rename("/etc/systemd/x", "/etc/systemd/system.attached")
		case "unmount-tree /sys/fs MNT", "unmount-copy /sys/fs/bpf": // it is gone from here too, and the next act needs one
			mountFilesystem(t, "bpf", "/sys/fs/bpf", unix.BPF_FS_MAGIC)
			mountFilesystem(t, "cgroup2", "/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC)
		}
	}
	_ = g.command.Wait()
}
