// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// selfAct is what somebody does to the agent, or the agent itself, for TestSelf.
func selfAct(f []string) (bool, error) {
	act := selfActs[f[0]]
	if act == nil {
		return false, nil
	}
	return true, act(f[1:])
}

var selfActs = map[string]func([]string) error{
	"self-agent":    selfAgent,
	"map-pinned":    func(a []string) error { return closing(ebpf.LoadPinnedMap(a[0], nil)) },
	"map-read":      func(a []string) error { return closing(ebpf.LoadPinnedMap(a[0], &ebpf.LoadPinOptions{ReadOnly: true})) },
	"map-by-id":     mapByID,
	"program-by-id": programByID,
	"link-detach":   func(a []string) error { return linkCommand(a[0], 34) },
	"link-update":   func(a []string) error { return linkCommand(a[0], 29) },
	"pin-own":       pinOwn,
	"answer-first":  answerFirst,
	"lock": func(a []string) error {
		return lockAct(a[0], func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	},
	"lease": func(a []string) error {
		return lockAct(a[0], func(fd int) error { _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); return err })
	},
	"link-by-id":      linkByID,
	"known-places":    func(a []string) error { return KnownPlaces(a[0], a[1:]) },
	"move-tree":       moveTree,
	"move-beside":     func(a []string) error { return inOtherMounts(func() error { return unix.PivotRoot(a[0], a[0]) }) },
	"modify-return":   func([]string) error { return modifyReturn() },
	"write-user":      func([]string) error { return writeUser() },
	"ptrace":          ptraceAct,
	"memory":          func(a []string) error { return closed(os.OpenFile("/proc/"+a[0]+"/mem", os.O_RDWR, 0)) },
	"vm-write":        vmWrite,
	"take-descriptor": takeDescriptor,
	"kill":            killAct,
	"sigio":           sigioAct,
	"limit":           limitAct,
	"mount-over":      mountOver,
	"mount-shared":    mountShared,
	"unmount":         func(a []string) error { return unix.Unmount(a[0], unix.MNT_DETACH) },
	"unmount-copy":    unmountCopy,
	"move-mount":      func(a []string) error { return unix.Mount(a[0], a[1], "", unix.MS_MOVE, "") },
	"write-by-bind":   writeByBind,
	"bind-over":       func(a []string) error { return bindFor(a[0], a[1], unix.MS_BIND|unix.MS_PRIVATE, nothing) },
	"bind-away":       func(a []string) error { return bindFor(a[0], a[1], unix.MS_BIND, nothing) },
	"unmount-tree":    unmountTree,
	"overlay-write": func(a []string) error {
		return overlay(a, func(f string) error { return closed(os.OpenFile(f, os.O_WRONLY, 0)) })
	},
	"overlay-chmod": func(a []string) error { return overlay(a, func(f string) error { return os.Chmod(f, 0o600) }) },
	"set-times":     func(a []string) error { return os.Chtimes(a[0], time.Now(), time.Now()) },
	"by-handle":     handleAct,
	"mkdir-deep":    mkdirDeep,
	"switch":        switchOff,
}

func nothing() error { return nil }

// switchOff takes every program's attachment from the kernel for a moment.
func switchOff(a []string) error {
	f, err := os.OpenFile(a[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// Both at the beginning: what is written elsewhere the kernel takes and forgets.
	_, off := f.WriteAt([]byte("0"), 0)
	_, on := f.WriteAt([]byte("1"), 0)
	return errors.Join(off, on, f.Close())
}

// handleAct opens a file by its number, when the kernel has forgotten its names.
func handleAct(a []string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a[0], 0)
	if err != nil {
		return fmt.Errorf("handle: %w", unix.EIO)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		return fmt.Errorf("caches: %w", unix.EIO)
	}
	mount, err := unix.Open(filepath.Dir(a[0]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_WRONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// mkdirDeep makes a directory far below another: mkdir-deep DIRECTORY NAME.
func mkdirDeep(a []string) error {
	dir := a[0] + strings.Repeat("/d", 60)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("on the way: %w", unix.EIO)
	}
	return os.Mkdir(filepath.Join(dir, a[1]), 0o755)
}

// selfAgent is the agent: self-agent ROOT TREE. It does what it is told by line.
func selfAgent(a []string) error {
	b, err := New(Config{Root: a[0], RingBytes: 1 << 18})
	if err != nil {
		return err
	}
	ctx := context.Background()
	on := &Self{Trees: []string{a[1]}}
	if len(a) > 2 { // stood down before anything is attached: what an earlier agent pinned goes all the same
		if err := b.ProtectSelf(ctx, nil); err != nil {
			return err
		}
		fmt.Println("ready")
		_, err := bufio.NewReader(os.Stdin).ReadString(0)
		return err
	}
	if err := b.ProtectSelf(ctx, on); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.Apply(ctx, enforce.StepAttach{Reason: "test"}); err != nil {
		return err
	}
	fmt.Println("ready", time.Since(begin))
	signal.Ignore(unix.SIGHUP)
	nothing := rules(enforce.ModeEnforce, enforce.PostureAudit, block("/nothing/there"))
	nothing.Visible = []policies.Class{policies.ClassCapabilities, policies.ClassDNS} // their programs are acted against
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var err error
		switch orders.Text() {
		case "on":
			err = b.ProtectSelf(ctx, on)
		case "off":
			err = b.ProtectSelf(ctx, nil)
		case "overfull": // it cannot tell the kernel all that is its own, says so, and goes on
			err = overfull(ctx, b, a[1], nothing)
		case "publish":
			err = b.Apply(ctx, enforce.StepPublish{Ruleset: nothing})
		case "observe":
			s, failed := b.Observe(ctx, []*enforce.Ruleset{nothing})
			if err = failed; err == nil && len(faults(s)) > 0 {
				err = errors.New(fmt.Sprint(faults(s)))
			}
		case "write":
			err = os.WriteFile(filepath.Join(a[1], "state"), []byte("x"), 0o600)
		case "attempts":
			n, failed := readCounter(b.maps[bpf.MusterMapCounters], bpf.MusterCounterCOUNT_SELF)
			if err = failed; err == nil && n == 0 {
				err = errors.New("nothing was counted")
			}
		}
		fmt.Println("done", err)
	}
	return nil
}

func overfull(ctx context.Context, b *Backend, dir string, published *enforce.Ruleset) error {
	var many []string
	for i := range 1100 {
		many = append(many, filepath.Join(dir, "many", strconv.Itoa(i)))
		if err := os.MkdirAll(many[i], 0o700); err != nil {
			return err
		}
	}
	if err := b.ProtectSelf(ctx, &Self{Trees: append(many, dir)}); err == nil {
		return errors.New("more places than the map has were noted")
	}
	s, err := b.Observe(ctx, []*enforce.Ruleset{published})
	if err == nil && (s.SelfFault == "" || len(faults(s)) > 0) {
		err = fmt.Errorf("it says %q, and finds %v", s.SelfFault, faults(s))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, "many")))
}

func closing(c interface{ Close() error }, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}

// mapByID opens the first map of a name that the kernel gives out.
func mapByID(a []string) error {
	refused := error(unix.ENOENT)
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if err != nil {
			return refused
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			refused = err
			continue
		}
		info, err := m.Info()
		_ = m.Close()
		if err == nil && info.Name == a[0] {
			return nil
		}
	}
}

func programByID(a []string) error {
	refused := error(unix.ENOENT)
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return refused
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			refused = err
			continue
		}
		info, err := p.Info()
		_ = p.Close()
		if err == nil && info.Name == a[0] {
			return nil
		}
	}
}

func bpfCall(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// linkCommand opens a pinned link, which nobody is kept from, and does something to it.
func linkCommand(pin string, command uintptr) error {
	name, err := unix.BytePtrFromString(pin)
	if err != nil {
		return err
	}
	get := struct {
		path  uint64
		fd    uint32
		flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(name)))}
	fd, err := bpfCall(7, unsafe.Pointer(&get), unsafe.Sizeof(get))
	runtime.KeepAlive(name)
	if err != nil {
		return fmt.Errorf("open the link: %w", err)
	}
	change := struct{ link, program, flags, old uint32 }{link: uint32(fd)}
	size := unsafe.Sizeof(change)
	if command == 34 {
		size = 4
	}
	_, err = bpfCall(command, unsafe.Pointer(&change), size)
	return err
}

// pinOwn pins a map of the caller's: the next agent must not find what somebody put there for it.
func pinOwn(a []string) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Pin(a[0]); err != nil {
		return err
	}
	return m.Unpin()
}

// answerFirst puts a program before ours on the hook of maps, whose answer is neither permission nor refusal, and opens a
// map. Where the verifier knows better there is none before ours.
func answerFirst(a []string) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "bpf_map", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	switch {
	case errors.Is(err, unix.EINVAL):
	case err != nil:
		return err
	default:
		defer p.Close()
		l, err := link.AttachLSM(link.LSMOptions{Program: p})
		if err != nil {
			return err
		}
		defer l.Close()
	}
	return closing(ebpf.LoadPinnedMap(a[0], nil))
}

// lockAct locks a file that it may only read.
func lockAct(name string, lock func(fd int) error) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return lock(fd)
}

// linkByID detaches the first link of a control group, which the agent's on packets is.
func linkByID([]string) error {
	all := new(link.Iterator)
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err == nil && info.Type == link.CgroupType {
			return all.Link.Detach()
		}
	}
	return errors.Join(all.Err(), unix.ENOENT)
}

func modifyReturn() error {
	return closing(ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachModifyReturn, AttachTo: "security_bpf_map", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	}))
}

func writeUser() error {
	return closing(ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, License: "GPL", Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -8), asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.R10, -8, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R3, 8), asm.FnProbeWriteUser.Call(),
			asm.Mov.Imm(asm.R0, 0), asm.Return(),
		},
	}))
}

func ptraceAct(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	return nil // let go when this process ends
}

func vmWrite(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	b := []byte("x")
	_, err = unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: 0, Len: 1}}, 0)
	return err
}

func takeDescriptor(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(p)
	fd, err := unix.PidfdGetfd(p, 0, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func killAct(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SignalNum(a[1]))
}

// sigioAct has the kernel send the signal, because a pipe's owner is the process.
func sigioAct(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_NONBLOCK); err != nil {
		return err
	}
	for _, set := range []struct{ what, value int }{
		{unix.F_SETOWN, pid}, {unix.F_SETSIG, int(unix.SignalNum(a[1]))}, {unix.F_SETFL, unix.O_ASYNC | unix.O_NONBLOCK},
	} {
		if _, err := unix.FcntlInt(uintptr(fds[0]), set.what, set.value); err != nil {
			return err
		}
	}
	_, err = unix.Write(fds[1], []byte("x"))
	return err
}

// limitAct sets a limit to what it is.
func limitAct(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	var now unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CPU, nil, &now); err != nil {
		return err
	}
	return unix.Prlimit(pid, unix.RLIMIT_CPU, &now, nil)
}
