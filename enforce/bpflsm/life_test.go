// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// lives are what ordinary programs do that no rule of TestOrdinaryLife forbids. Each gets an empty directory.
var lives = []struct {
	name string
	live func(dir string) error
}{
	{"namespace", liveInNamespace},
	{"pivot", liveInPivotedTree},
	{"overlay", liveOnOverlay},
	{"anonymous", liveOnAnonymous},
	{"huge", liveOnHugePages},
	{"socket", liveOnSocket},
	{"terminal", liveOnTerminal},
	{"queue", liveOnQueue},
	{"removed", liveInRemovedDirectory},
	{"tmpfile", liveOnTmpfile},
	{"memfd", func(string) error { return runMemfd() }},
}

// live carries out the operation "live NAME DIR" of a probe.
func live(f []string) error {
	for _, l := range lives {
		if len(f) == 3 && f[0] == "live" && l.name == f[1] {
			return l.live(f[2])
		}
	}
	return fmt.Errorf("unknown operation %q", f)
}

// first runs steps in order until one fails, and says which.
func first(steps ...func() error) error {
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func reopen(fd int, flags int) error {
	return closed(os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0))
}

func put(path string) func() error {
	return func() error { return os.WriteFile(path, []byte("x"), 0o755) }
}

func get(path string) func() error {
	return func() error { _, err := os.ReadFile(path); return err }
}

func mount(source, target, kind string, flags uintptr, data string) func() error {
	return func() error { return unix.Mount(source, target, kind, flags, data) }
}

func directories(paths ...string) func() error {
	return func() error {
		for _, p := range paths {
			if err := os.MkdirAll(p, 0o755); err != nil {
				return err
			}
		}
		return nil
	}
}

// apart gives this thread, which is never given back, a mount namespace of its own.
func apart() error {
	runtime.LockOSThread()
	return errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func runSelf(path string) func() error {
	return func() error {
		c := exec.Command(path)
		c.Env = []string{probeVariable + "=stat /"}
		return c.Run()
	}
}

func liveInNamespace(d string) error {
	self, err := os.ReadFile("/proc/self/exe")
	return errors.Join(err, first(
		apart, directories(d+"/tmp", d+"/source", d+"/bound"), put(d+"/source/f"),
		mount("tmpfs", d+"/tmp", "tmpfs", 0, ""), mount(d+"/source", d+"/bound", "", unix.MS_BIND, ""),
		mount("", d+"/bound", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		put(d+"/tmp/f"), get(d+"/tmp/f"), get(d+"/bound/f"),
		func() error { return os.WriteFile(d+"/tmp/program", self, 0o755) }, runSelf(d+"/tmp/program"),
		func() error { return os.Rename(d+"/tmp/f", d+"/tmp/g") },
		func() error { return os.Remove(d + "/tmp/g") },
	))
}

func liveInPivotedTree(d string) error {
	self, err := os.ReadFile("/proc/self/exe")
	return errors.Join(err, first(
		apart, mount("tmpfs", d, "tmpfs", 0, ""), directories(d+"/old", d+"/bin", d+"/proc", d+"/dev"), put(d+"/dev/null"),
		func() error { return os.WriteFile(d+"/bin/program", self, 0o755) },
		func() error { return unix.PivotRoot(d, d+"/old") },
		func() error { return os.Chdir("/") },
		func() error { return unix.Unmount("/old", unix.MNT_DETACH) },
		mount("proc", "/proc", "proc", 0, ""), get("/proc/self/status"),
		put("/f"), get("/f"), runSelf("/bin/program"),
		func() error { return os.Link("/f", "/g") },
		func() error { return os.Remove("/f") },
	))
}

func liveOnOverlay(d string) error {
	return first(
		apart, mount("tmpfs", d, "tmpfs", 0, ""),
		directories(d+"/lower/sub", d+"/upper", d+"/work", d+"/merged"), put(d+"/lower/f"), put(d+"/lower/sub/f"),
		mount("overlay", d+"/merged", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", d)),
		get(d+"/merged/f"), put(d+"/merged/f"), get(d+"/merged/f"), put(d+"/merged/new"),
		func() error { return os.Rename(d+"/merged/new", d+"/merged/sub/f") },
		func() error { _, err := os.ReadDir(d + "/merged/sub"); return err },
		func() error { return os.RemoveAll(d + "/merged/sub") },
	)
}

func liveOnAnonymous(string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("m", 0)
	if err != nil {
		return err
	}
	return first(
		func() error { return reopen(int(r.Fd()), os.O_RDONLY) },
		func() error { return reopen(int(w.Fd()), os.O_WRONLY) },
		func() error { return reopen(fd, os.O_RDWR) },
		func() error { return unix.Fchmod(fd, 0o600) },
		func() error { return unix.Ftruncate(fd, 100) },
		get("/proc/self/status"), func() error { return closed(os.Open("/proc/self/ns/mnt")) },
	)
}

func liveOnHugePages(string) error {
	fd, err := unix.MemfdCreate("m", unix.MFD_HUGETLB)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // this kernel has none
	}
	return errors.Join(err, reopen(fd, os.O_RDWR))
}

func liveOnSocket(d string) error {
	l, err := net.Listen("unix", d+"/socket")
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", d+"/socket")
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	return errors.Join(err, c.Close(), l.Close())
}

func liveOnTerminal(string) error {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		return errno
	}
	return reopen(int(peer), os.O_RDWR)
}

func liveOnQueue(string) error {
	name := append([]byte("life"), 0)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(name)))
	_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, at, unix.O_RDWR|unix.O_CREAT, 0o600, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if _, _, errno = unix.Syscall(unix.SYS_MQ_UNLINK, at, 0, 0); errno != 0 {
		return errno
	}
	runtime.KeepAlive(name)
	return nil
}

func liveInRemovedDirectory(d string) error {
	return first(
		directories(d+"/gone"), func() error { return os.Chdir(d + "/gone") },
		func() error { return os.Remove(d + "/gone") },
		func() error { return closed(os.Open(".")) },
		runSelf("/proc/self/exe"), func() error { return os.Chdir("/") },
	)
}

func liveOnTmpfile(d string) error {
	fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return first(
		func() error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, d+"/named", unix.AT_SYMLINK_FOLLOW)
		},
		get(d+"/named"), func() error { return os.Remove(d + "/named") },
		func() error { return reopen(fd, os.O_RDWR) },
	)
}

// TestOrdinaryLife goes on under rules that do not forbid it.
func TestOrdinaryLife(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/secret/f", "x", 0o644)
	write(t, d+"/file", "x", 0o644)
	recursive := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/secret/")
	recursive.Rule.Object.Recursive = true
	app := copySelf(t, d+"/app")
	own := rule(policies.ClassFile, policies.ActionAllow, policies.ObjectDirectory, "/", app)
	own.Rule.Object.Recursive = true
	for name, list := range map[string][]enforce.Rule{
		"file":       {block(d + "/file")},
		"directory":  {recursive},
		"allow-list": {rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/file", d+"/somebody"), own},
	} {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock, list...)})
		for _, l := range lives {
			for _, exe := range []string{"/proc/self/exe", app} {
				if got := tryAs(t, exe, "live "+l.name+" "+t.TempDir()); got[0] != "ok" {
					t.Errorf("under a rule for a %s, %s (%s): %s", name, l.name, exe, strings.Join(got, " "))
				}
			}
		}
		for _, line := range g.seen(t) {
			t.Errorf("under a rule for a %s: %s", name, line)
		}
	}
}

// TestUpgradeSpeaks denies while two sets of programs are attached: whichever of them comes first, the denial
// is told, and told once.
func TestUpgradeSpeaks(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	audited := rule(policies.ClassFile, policies.ActionAudit, policies.ObjectPath, d+"/g")
	write(t, d+"/g", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"), audited)})
	h, err := g.host()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := h.supported(demandNames)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := load(t.Context(), h, g.maps, g.ringBytes, loading{programs: programs, iterators: true, instance: randomNumber()})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.close()
	for _, p := range fresh.wanted {
		if fresh.links[p.name], err = p.attach(fresh.Programs[p.name]); err != nil {
			t.Fatal(err)
		}
	}
	lines := []string{"open " + d + "/f denied by p00000", "open " + d + "/g audited-by p00001"}
	for range 2 {
		want(t, try(t, "read "+d+"/f", "read "+d+"/g"), "EACCES", "ok")
		want(t, g.seen(t), lines...)
		if err := fresh.speak(); err != nil { // and once more with the other one speaking
			t.Fatal(err)
		}
	}
}

// TestTwoNames denies a rename for its second name, after an allow-list in the audit posture met the first.
func TestTwoNames(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/a", "x", 0o644)
	mover := copySelf(t, d+"/mover")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/other", mover), block(d+"/b"))})
	want(t, tryAs(t, mover, "rename "+d+"/a "+d+"/b"), "EACCES")
	events := g.seen(t)
	want(t, events[len(events)-1:], "rename "+d+"/a "+d+"/b denied by p00001")
	want(t, tryAs(t, mover, "rename "+d+"/a "+d+"/other"), "ok")
	events = g.seen(t)
	want(t, events[len(events)-1:], "rename "+d+"/a "+d+"/other would-deny by posture")
}

// TestTwoNamesReported denies a rename and a link for one name, and reports the other by a rule that only reports.
func TestTwoNamesReported(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/a", "x", 0o644)
	audit := func(name string) enforce.Rule {
		return rule(policies.ClassFile, policies.ActionAudit, policies.ObjectPath, d+"/"+name)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/a"), audit("b"))})
	want(t, try(t, "rename "+d+"/a "+d+"/b", "link "+d+"/a "+d+"/b"), "EACCES", "EACCES")
	want(t, g.seen(t), "rename "+d+"/a "+d+"/b denied by p00000 audited-by p00001", "link "+d+"/a "+d+"/b denied by p00000 audited-by p00001")
	// In a mount namespace of its own a file has a second name, the host's.
	for _, step := range []func() error{directories(d+"/home", d+"/else"), func() error { return os.WriteFile(d+"/home/f", nil, 0o600) }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPattern, d+"/else/*"), audit("home/f"))})
	want(t, try(t, inApart("root", "/proc/self/exe", "bind "+d+"/home "+d+"/else", "read "+d+"/else/f")), "ok,EACCES")
	want(t, g.seen(t), "open "+d+"/else/f denied by p00000 audited-by p00001")
}

// TestStackedMarks renames on overlayfs, which renames below within the same call.
func TestStackedMarks(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	mover := copySelf(t, d+"/mover")
	m := d + "/merged"
	for _, step := range []func() error{
		directories(m, d+"/o"), mount("tmpfs", d+"/o", "tmpfs", 0, ""), directories(d+"/o/l", d+"/o/u", d+"/o/w"),
		mount("overlay", m, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", d+"/o")),
		directories(m + "/dir"), put(m + "/a"),
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = errors.Join(unix.Unmount(m, 0), unix.Unmount(d+"/o", 0)) })
	later := m + "/dir/later"
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(later),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, later, mover))})
	want(t, tryAs(t, mover, "rename "+m+"/a "+later, "rename "+m+"/dir "+m+"/dir2"), "ok", "ok")
	want(t, try(t, "read "+m+"/dir2/later"), "EACCES")
}

// TestMarksThatFail publishes although a protected path can never name a file, and the map of marks is full.
func TestMarksThatFail(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	marks := g.maps[bpf.MusterMapMarks]
	for n := range marks.MaxEntries() {
		if marks.Put(&bpf.MusterMarkKey{Inode: uint64(n), Device: 1}, &bpf.MusterMark{Paths: [4]uint64{1}}) != nil {
			break
		}
	}
	list := []enforce.Rule{block(d + "/f"), block(d + "/" + strings.Repeat("n", 300))}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, list...)})
	want(t, try(t, "read "+d+"/f"), "EACCES")
	losses, err := g.Losses()
	if err != nil || losses[lossMarkFull] == 0 {
		t.Errorf("losses %v %v", losses, err)
	}
}
