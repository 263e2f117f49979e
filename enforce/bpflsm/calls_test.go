// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// pathCalls are raw system calls on a path: the number, and the arguments with PATH for the path and CWD for the
// descriptor that it is relative to.
var pathCalls = []struct {
	name   string
	number uintptr
	args   string
}{
	{"open", unix.SYS_OPEN, "PATH 0"},
	{"openat", unix.SYS_OPENAT, "CWD PATH 0"},
	{"openat2", unix.SYS_OPENAT2, "CWD PATH ZERO 24"},
	{"stat", unix.SYS_STAT, "PATH ROOM"},
	{"lstat", unix.SYS_LSTAT, "PATH ROOM"},
	{"newfstatat", unix.SYS_NEWFSTATAT, "CWD PATH ROOM 0"},
	{"statx", unix.SYS_STATX, "CWD PATH 0 4095 ROOM"},
	{"access", unix.SYS_ACCESS, "PATH 4"},
	{"faccessat", unix.SYS_FACCESSAT, "CWD PATH 4"},
	{"faccessat2", unix.SYS_FACCESSAT2, "CWD PATH 4 0"},
	{"chmod", unix.SYS_CHMOD, "PATH 420"},
	{"fchmodat", unix.SYS_FCHMODAT, "CWD PATH 420"},
	{"chown", unix.SYS_CHOWN, "PATH 0 0"},
	{"lchown", unix.SYS_LCHOWN, "PATH 0 0"},
	{"fchownat", unix.SYS_FCHOWNAT, "CWD PATH 0 0 0"},
	{"truncate", unix.SYS_TRUNCATE, "PATH 0"},
	{"statfs", unix.SYS_STATFS, "PATH ROOM"},
	{"utime", unix.SYS_UTIME, "PATH 0"},
	{"utimes", unix.SYS_UTIMES, "PATH 0"},
	{"utimensat", unix.SYS_UTIMENSAT, "CWD PATH 0 0"},
	{"listxattr", unix.SYS_LISTXATTR, "PATH ROOM 100"},
	{"llistxattr", unix.SYS_LLISTXATTR, "PATH ROOM 100"},
	{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, "CWD PATH HANDLE ROOM 0"},
	{"open_tree", unix.SYS_OPEN_TREE, "CWD PATH 0"},
	{"link", unix.SYS_LINK, "PATH OTHER"},
	{"rename", unix.SYS_RENAME, "PATH OTHER"},
	{"renameat2", unix.SYS_RENAMEAT2, "CWD PATH CWD OTHER 0"},
	{"unlink", unix.SYS_UNLINK, "PATH"},
	{"unlinkat", unix.SYS_UNLINKAT, "CWD PATH 0"},
	{"mkdir", unix.SYS_MKDIR, "NEW 493"},
	{"mkdirat", unix.SYS_MKDIRAT, "CWD NEW 493"},
	{"rmdir", unix.SYS_RMDIR, "DIR"},
	{"chdir", unix.SYS_CHDIR, "DIR"},
	{"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH, "99 PATH 2"},
	{"mknodat", unix.SYS_MKNODAT, "CWD NEW 4096 0"},
	{"symlink", unix.SYS_SYMLINK, "OTHER NEW"},
	{"umount2", unix.SYS_UMOUNT2, "DIR 0"},
	{"mount", unix.SYS_MOUNT, "OTHER DIR 0 0 0"},
	{"swapon", unix.SYS_SWAPON, "PATH 0"},
	{"acct", unix.SYS_ACCT, "DIR"},
	{"execve", unix.SYS_EXECVE, "PATH 0 0"},
	{"execveat", unix.SYS_EXECVEAT, "CWD PATH 0 0 0"},
}

// failsEarly are those that fail before the kernel comes to the file, as they are made here.
var failsEarly = map[string]bool{"inotify_add_watch": true, "acct": true, "execve": true, "execveat": true}

// callOn makes one of pathCalls: call NAME DIRECTORY, on DIRECTORY/file, DIRECTORY/dir or DIRECTORY/new.
func callOn(name, dir string) error {
	at := slices.IndexFunc(pathCalls, func(c struct {
		name   string
		number uintptr
		args   string
	},
	) bool {
		return c.name == name
	})
	if at < 0 {
		return fmt.Errorf("no call %s", name)
	}
	var zero, room [4096]byte
	handle := [32]uint32{100}
	text := func(s string) uintptr {
		p, _ := unix.BytePtrFromString(s)
		return uintptr(unsafe.Pointer(p))
	}
	var args [6]uintptr
	for i, word := range strings.Fields(pathCalls[at].args) {
		switch word {
		case "PATH":
			args[i] = text(dir + "/file")
		case "NEW":
			args[i] = text(dir + "/new")
		case "DIR":
			args[i] = text(dir + "/dir")
		case "OTHER":
			args[i] = text(dir + "/../other")
		case "CWD":
			args[i] = ^uintptr(99)
		case "ROOM":
			args[i] = uintptr(unsafe.Pointer(&room))
		case "ZERO":
			args[i] = uintptr(unsafe.Pointer(&zero))
		case "HANDLE":
			args[i] = uintptr(unsafe.Pointer(&handle))
		default:
			n, _ := strconv.Atoi(word)
			args[i] = uintptr(n)
		}
	}
	_, _, errno := unix.RawSyscall6(pathCalls[at].number, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// onCalls is a rule on system calls, as Compile makes it.
func onCalls(path string, calls ...string) enforce.Rule {
	r := rule(policies.ClassSyscalls, policies.ActionAudit, policies.ObjectSyscall, path)
	r.Rule.Object.Syscalls, r.Rule.Object.Recursive = calls, true
	return r
}

// told are the events as "CALL RESOURCE ERRNO".
func (g *guard) told(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range g.taken(t) {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Operation, e.Resource, unix.ErrnoName(unixErrno(e.Errno)))))
	}
	return lines
}

func unixErrno(n int) unix.Errno { return unix.Errno(n) }

// TestPathCalls makes every call on a path that the kernel comes to by its own way, relative to the working
// directory and through a symbolic link, and once where there is nothing.
func TestPathCalls(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	var names []string
	for _, c := range pathCalls {
		names = append(names, c.name)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, onCalls(d+"/real/", names...))})
	if err := os.MkdirAll(d+"/real/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", d+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, c := range pathCalls {
		write(t, d+"/real/file", "", 0o644)
		_ = os.MkdirAll(d+"/real/dir", 0o755)
		_ = os.RemoveAll(d + "/real/new")
		g.taken(t)
		object := "/file"
		switch {
		case strings.Contains(c.args, "NEW"):
			object = "/new"
		case strings.Contains(c.args, "DIR"):
			object = "/dir"
		}
		got := try(t, "chdir "+d, "call "+c.name+" ./link/../link")[1]
		if failsEarly[c.name] {
			// It never came to the file: through a link it is told by the link's name, which no rule has.
			want(t, g.told(t))
			got = try(t, "call "+c.name+" "+d+"/real")[0]
		}
		line := c.name + " " + d + "/real" + object
		if got != "ok" {
			line += " " + got
		}
		if told := g.told(t); len(told) != 1 || told[0] != line {
			t.Errorf("%s: %s: told %q, want %q", c.name, got, told, line)
		}
		got = try(t, "call "+c.name+" "+d+"/real/../real/./nothing")[0]
		if told := g.told(t); got == "ok" || len(told) != 1 || told[0] != c.name+" "+d+"/real/nothing"+object+" "+got {
			t.Errorf("%s on nothing: %s: told %q", c.name, got, told)
		}
		if told := append(try(t, "call "+c.name+" "+d), g.told(t)...); len(told) != 1 {
			t.Errorf("%s elsewhere: told %q", c.name, told)
		}
	}
}

// by are the system calls with who made them: "CALL by SOURCE".
func (g *guard) by(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range g.taken(t) {
		if e.Verdict != enforce.Permit || len(e.Audits) != 1 {
			t.Errorf("event %+v", e)
		}
		for range max(1, e.Count) {
			lines = append(lines, e.Operation+" by "+e.Source)
		}
	}
	return lines
}

// TestCallSources: by executable, by directory, by the directory of a script; a start is the caller's, and what never
// returns is told when it begins.
func TestCallSources(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	tool, free := copySelf(t, d+"/tools/tool"), copySelf(t, d+"/free")
	deep := copySelf(t, d+"/tools/deep/tool")
	write(t, d+"/scripts/script", "#!"+free+"\n", 0o755)
	from := func(r enforce.Rule, sources ...enforce.Directory) enforce.Rule {
		for _, s := range sources {
			r.Rule.Sources = append(r.Rule.Sources, policies.Source{Dir: s.Path, Recursive: s.Recursive})
		}
		r.Directories = sources
		return r
	}
	exact := onCalls("", "exit_group", "execve")
	exact.Sources, exact.Rule.Sources = []string{tool}, []policies.Source{{Path: tool}}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, exact,
		from(onCalls("", "chdir"), enforce.Directory{Path: d + "/tools/"}, enforce.Directory{Path: d + "/scripts/", Recursive: true}))})
	want(t, tryAs(t, free, "chdir /"), "ok")
	want(t, g.by(t))
	want(t, tryAs(t, deep, "chdir /"), "ok")
	want(t, g.by(t))
	want(t, tryAs(t, tool, "chdir /"), "ok")
	want(t, g.by(t), "chdir by "+tool, "exit_group by "+tool)
	want(t, tryAs(t, d+"/scripts/script", "chdir /"), "ok")
	want(t, g.by(t), "chdir by "+free)
	want(t, tryAs(t, tool, "run "+free+" stat /"), "ok")
	// Go first starts a child that does nothing but exit.
	want(t, g.by(t), "exit_group by "+tool, "execve by "+tool, "exit_group by "+tool)
	// Forty at once: some are told one by one, the rest are counted.
	many := make([]string, 40)
	for i := range many {
		many[i] = "chdir /"
	}
	tryAs(t, tool, many...)
	if got := g.by(t); len(got) != 41 {
		t.Errorf("%d calls told: %q", len(got), got)
	}
}

// TestOtherNumbers makes the calls of i386 and of x32, which have numbers of their own.
func TestOtherNumbers(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, onCalls(d+"/", "mkdir", "rmdir"))})
	want(t, try(t, "call-i386 39 "+d+"/made", "call-x32 84 "+d+"/made"), "ok", "ENOSYS")
	var lines []string
	for _, e := range g.taken(t) {
		lines = append(lines, fmt.Sprintf("%s %s %d", e.Data, e.Resource, e.Errno))
	}
	want(t, lines, "syscall=SYS_MKDIR abi=i386 "+d+"/made 0", "syscall=SYS_RMDIR abi=x32 "+d+"/made 38")
}

// callOther makes a system call by a number of another ABI: call-i386 NUMBER PATH or call-x32 NUMBER PATH.
func callOther(f []string) error {
	number, err := strconv.Atoi(f[1])
	if err != nil {
		return err
	}
	if f[0] == "call-i386" {
		return callI386(number, f[2])
	}
	path, err := unix.BytePtrFromString(f[2])
	if err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(uintptr(number)|0x40000000, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// callI386 makes a system call of i386, as any program can, with a path and a mode.
func callI386(number int, path string) error {
	m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_32BIT)
	if err != nil {
		return err
	}
	base := uintptr(unsafe.Pointer(&m[0]))
	copy(m[4096:], path+"\x00")
	word := func(n uintptr) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} }
	// mov ebx, PATH; mov ecx, 0755; mov eax, NUMBER; int 0x80; mov edx, RESULT; mov [rdx], eax; ret
	code := slices.Concat([]byte{0xbb}, word(base+4096), []byte{0xb9}, word(0o755), []byte{0xb8}, word(uintptr(number)),
		[]byte{0xcd, 0x80, 0xba}, word(base+2048), []byte{0x89, 0x02, 0xc3})
	copy(m, code)
	entry := &base
	(*(*func())(unsafe.Pointer(&entry)))()
	if result := *(*int32)(unsafe.Pointer(&m[2048])); result < 0 {
		return unix.Errno(-result)
	}
	return nil
}

// TestDemand: what costs every system call something is attached only while a rule asks for it, and looked after then.
func TestDemand(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	const root = testRoot + "-demand"
	g := startGuard(t, root)
	d := t.TempDir()
	links := func() []string {
		var found []string
		for _, p := range attached {
			if _, err := os.Stat(g.pins.linkPath(p.name)); err == nil && p.demand != 0 {
				found = append(found, p.name)
			}
		}
		return found
	}
	want(t, links())
	pathless := rules(enforce.ModeEnforce, enforce.PostureAudit, onCalls("", "getppid"))
	g.apply(t, enforce.StepPublish{Ruleset: pathless})
	want(t, links(), "call_returns")
	// The agent's own calls are not told: here that is this process.
	os.Getppid()
	for _, e := range g.taken(t) {
		if e.PID == uint32(os.Getpid()) {
			t.Errorf("the agent's own call was told: %+v", e)
		}
	}
	if counted, err := readCounter(g.maps[bpf.MusterMapCounters], bpf.MusterCounterCOUNT_AGENT); err != nil || counted == 0 {
		t.Errorf("%d calls of the agent, %v", counted, err)
	}
	want(t, faults(g.observe(t, pathless)))
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, onCalls(d+"/", "mkdir"))
	want(t, faults(g.observe(t, rs))) // what a ruleset needs that is not in force yet is no fault
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	want(t, faults(g.observe(t, rs)))
	if err := os.Remove(g.pins.linkPath("call_returns")); err != nil {
		t.Fatal(err)
	}
	want(t, faults(g.observe(t, rs)), "link call_returns missing")
	g.apply(t, enforce.StepAttach{Reason: "test"})
	want(t, faults(g.observe(t, rs)))
	g.taken(t)
	want(t, try(t, "mkdir "+d+"/one", "call mkdir "+d), "ok", "ok")
	want(t, g.told(t), "mkdir "+d+"/new")
	// The next agent adopts them.
	next, err := New(Config{Root: root, RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.Apply(t.Context(), enforce.StepAttach{}); err != nil {
		t.Fatal(err)
	}
	s, err := next.Observe(t.Context(), []*enforce.Ruleset{rs})
	if err != nil {
		t.Fatal(err)
	}
	want(t, faults(s))
	other := rules(enforce.ModeEnforce, enforce.PostureAudit, blockRun(d+"/f"))
	want(t, faults(g.observe(t, other)))
	g.apply(t, enforce.StepPublish{Ruleset: other})
	want(t, links(), "file_mprotect", "file_open", "path_symlink", "path_link", "path_rename")
	// A link that nothing in force needs: every open would pay for it.
	idle, err := link.LoadPinnedLink(g.pins.linkPath(bpf.MusterProgFileOpen), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := idle.Unpin(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Pin(g.pins.linkPath(bpf.MusterProgPathUnlink)); err != nil {
		t.Fatal(err)
	}
	want(t, faults(g.observe(t, other)), "link path_unlink extra", "link file_open missing")
	g.apply(t, enforce.StepAttach{Reason: "test"})
	want(t, faults(g.observe(t, other)))
	want(t, links(), "file_mprotect", "file_open", "path_symlink", "path_link", "path_rename")
}
