// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// Of the kernel's uapi: operations of an io_uring.
const (
	ringOpenat  = 18
	ringRename  = 35
	ringUnlink  = 36
	ringMkdir   = 37
	ringSymlink = 38
	ringLink    = 39
	ringXattr   = 42
)

// acl is an access control list as setxattr takes it: what the mode 0666 says.
const acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x04\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x06\x00\xff\xff\xff\xff"

// noCapability is a file capability: none at all, of revision 2.
const noCapability = "\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// changes are the ways to change a file P, or make it when it is not there, that plain operations of the probe lack.
// Those of changesAsRoot take capabilities. D is a directory beside P on its file system.
var (
	changes = map[string]func(p, d string) error{
		"open-truncate":    func(p, _ string) error { return closed(os.OpenFile(p, os.O_RDONLY|os.O_TRUNC, 0)) },
		"open-write-trunc": func(p, _ string) error { return closed(os.OpenFile(p, os.O_WRONLY|os.O_TRUNC|os.O_CREATE, 0o666)) },
		"setxattr":         func(p, _ string) error { return unix.Setxattr(p, "user.a", []byte("x"), 0) },
		"lsetxattr":        func(p, _ string) error { return unix.Lsetxattr(p, "user.a", []byte("x"), 0) },
		"fsetxattr": func(p, _ string) error {
			return onRead(p, func(fd int) error { return unix.Fsetxattr(fd, "user.a", []byte("x"), 0) })
		},
		"removexattr": func(p, _ string) error { return present(unix.Removexattr(p, "user.b")) },
		"fremovexattr": func(p, _ string) error {
			return onRead(p, func(fd int) error { return present(unix.Fremovexattr(fd, "user.b")) })
		},
		"setfacl":   func(p, _ string) error { return unix.Setxattr(p, "system.posix_acl_access", []byte(acl), 0) },
		"unsetfacl": func(p, _ string) error { return present(unix.Removexattr(p, "system.posix_acl_access")) },
		"fchmod":    func(p, _ string) error { return onRead(p, func(fd int) error { return unix.Fchmod(fd, 0o666) }) },
		"fchmodat":  func(p, _ string) error { return unix.Fchmodat(unix.AT_FDCWD, p, 0o666, 0) },
		"fchown": func(p, _ string) error {
			return onRead(p, func(fd int) error { return unix.Fchown(fd, -1, os.Getgid()) })
		},
		"lchown": func(p, _ string) error { return unix.Lchown(p, -1, os.Getgid()) },
		"fchownat": func(p, _ string) error {
			return unix.Fchownat(unix.AT_FDCWD, p, -1, os.Getgid(), unix.AT_SYMLINK_NOFOLLOW)
		},
		"fchownat-empty": func(p, _ string) error {
			return onPath(p, func(fd int) error { return unix.Fchownat(fd, "", -1, os.Getgid(), unix.AT_EMPTY_PATH) })
		},
		"exchange":      func(p, d string) error { return renamed(d+"/spare", p, unix.RENAME_EXCHANGE) },
		"exchange-back": func(p, d string) error { return renamed(p, d+"/spare", unix.RENAME_EXCHANGE) },
		"link-descriptor": func(p, d string) error {
			return onRead(p, func(fd int) error { return linkDescriptor(fd, d+"/linked") })
		},
		"uring-open-write": func(p, _ string) error { return ringPath(ringEntry{opcode: ringOpenat, opFlags: unix.O_WRONLY}, p, "") },
		"uring-rename": func(p, d string) error {
			return errors.Join(ringPath(ringEntry{opcode: ringRename}, p, d+"/away"), os.Rename(d+"/away", p))
		},
		"uring-rename-over": func(p, d string) error {
			return errors.Join(ringPath(ringEntry{opcode: ringRename}, d+"/spare", p), os.WriteFile(d+"/spare", nil, 0o666))
		},
		"uring-link": func(p, d string) error { return ringPath(ringEntry{opcode: ringLink}, p, d+"/linked-by-ring") },
		"uring-unlink": func(p, _ string) error {
			return errors.Join(ringPath(ringEntry{opcode: ringUnlink}, p, ""), os.WriteFile(p, nil, 0o666))
		},
		"uring-setxattr": ringSetxattr,
		"tmpfile-link":   func(p, d string) error { return errors.Join(os.Remove(p), linkTemporary(d, p)) },
		"utimes":         func(p, _ string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, make([]unix.Timespec, 2), 0) },
		"lutimes":        func(p, _ string) error { return unix.Lutimes(p, make([]unix.Timeval, 2)) },
		"futimens": func(p, _ string) error {
			return onRead(p, func(fd int) error { return unix.Futimes(fd, make([]unix.Timeval, 2)) })
		},
		"touch":   func(p, _ string) error { return unix.Utimes(p, nil) },
		"chattr":  func(p, _ string) error { return onRead(p, setFlags) },
		"fsxattr": func(p, _ string) error { return onRead(p, setExtendedFlags) },
		"mmap-shared": func(p, _ string) error {
			return onWrite(p, func(fd int) error { return mapShared(fd, unix.PROT_READ|unix.PROT_WRITE, 0) })
		},
	}
	changesAsRoot = map[string]func(p, d string) error{
		"set-capability":    func(p, _ string) error { return unix.Setxattr(p, "security.capability", []byte(noCapability), 0) },
		"remove-capability": func(p, _ string) error { return present(unix.Removexattr(p, "security.capability")) },
		"set-trusted":       func(p, _ string) error { return unix.Setxattr(p, "trusted.a", []byte("x"), 0) },
		"whiteout": func(p, d string) error {
			return errors.Join(renamed(p, d+"/white", unix.RENAME_WHITEOUT), os.Remove(p), os.Rename(d+"/white", p))
		},
		"handle-write": func(p, _ string) error { return byHandle(p, unix.O_WRONLY) },
	}
	// makings make P, which is not there yet.
	makings = map[string]func(p, d string) error{
		"mkfifo":        func(p, _ string) error { return unix.Mknod(p, unix.S_IFIFO|0o666, 0) },
		"mksock":        func(p, _ string) error { return unix.Mknod(p, unix.S_IFSOCK|0o666, 0) },
		"mkreg":         func(p, _ string) error { return unix.Mknod(p, unix.S_IFREG|0o666, 0) },
		"bind-unix":     bindUnix,
		"uring-mkdir":   func(p, _ string) error { return ringPath(ringEntry{opcode: ringMkdir, length: 0o755}, p, "") },
		"uring-symlink": func(p, _ string) error { return ringPath(ringEntry{opcode: ringSymlink}, "/nowhere", p) },
		"uring-create": func(p, _ string) error {
			return ringPath(ringEntry{opcode: ringOpenat, opFlags: unix.O_CREAT | unix.O_WRONLY, length: 0o666}, p, "")
		},
		"tmpfile-into": func(p, d string) error { return linkTemporary(d, p) },
		"link-into":    func(p, d string) error { return os.Link(d+"/spare", p) },
		"link-fd-into": func(p, d string) error {
			return onRead(d+"/spare", func(fd int) error { return linkDescriptor(fd, p) })
		},
		"tmpfile-in": func(p, _ string) error {
			return fdClosed(unix.Open(filepath.Dir(p), unix.O_TMPFILE|unix.O_RDWR, 0o600))
		},
	}
	makingsAsRoot = map[string]func(p, d string) error{
		"mkchr": func(p, _ string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"mkblk": func(p, _ string) error { return unix.Mknod(p, unix.S_IFBLK|0o666, int(unix.Mkdev(7, 200))) },
	}
)

// way carries out "way NAME P D".
func way(f []string) error {
	for _, ways := range []map[string]func(p, d string) error{changes, changesAsRoot, makings, makingsAsRoot} {
		if do := ways[f[1]]; do != nil {
			return do(f[2], f[3])
		}
	}
	return fmt.Errorf("unknown operation %q", f)
}

// noDump is FS_NODUMP_FL: backups are to leave the file out.
const noDump = 0x40

func setFlags(fd int) error {
	had, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return unprepared("the flags", err)
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, had|noDump)
}

// setExtendedFlags sets what it finds.
func setExtendedFlags(fd int) error {
	var flags [28]byte // struct fsxattr
	const get, set = 0x801c581f, 0x401c5820
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), get, uintptr(unsafe.Pointer(&flags[0]))); errno != 0 {
		return unprepared("the flags", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), set, uintptr(unsafe.Pointer(&flags[0]))); errno != 0 {
		return errno
	}
	return nil
}

func fdClosed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func onFlags(path string, flags int, use func(fd int) error) error {
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	return errors.Join(use(fd), unix.Close(fd))
}

func onRead(path string, use func(fd int) error) error  { return onFlags(path, unix.O_RDONLY, use) }
func onWrite(path string, use func(fd int) error) error { return onFlags(path, unix.O_RDWR, use) }
func onPath(path string, use func(fd int) error) error  { return onFlags(path, unix.O_PATH, use) }

// present takes it for done when there was nothing to remove: nobody kept the caller from it.
func present(err error) error {
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

func renamed(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

func linkDescriptor(fd int, to string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	return err
}

func linkTemporary(dir, to string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(linkDescriptor(fd, to), unix.Close(fd))
}

func byHandle(path string, flags int) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return unprepared("handle", err)
	}
	return onRead(filepath.Dir(path), func(mount int) error { return fdClosed(unix.OpenByHandleAt(mount, handle, flags)) })
}

func bindUnix(path, _ string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd))
}

// mapShared maps a file's pages shared, and raises the protection later when there is one.
func mapShared(fd, protection, later int) error {
	m, err := unix.Mmap(fd, 0, 4096, protection, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if later != 0 {
		err = unix.Mprotect(m, later)
	}
	return errors.Join(err, unix.Munmap(m))
}

// ringPath carries out an operation on one or two paths through an io_uring.
func ringPath(e ringEntry, one, two string) error {
	a, b := append([]byte(one), 0), append([]byte(two), 0)
	e.fd, e.addr = unix.AT_FDCWD, uint64(uintptr(unsafe.Pointer(&a[0])))
	if e.opcode == ringRename || e.opcode == ringLink { // the second directory, and the second path
		at := int32(unix.AT_FDCWD)
		e.length, e.offset = uint32(at), uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	if e.opcode == ringSymlink {
		e.offset = uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	return pinned(func() error { return ring(e) }, a, b)
}

func ringSetxattr(path, _ string) error {
	p, name, value := append([]byte(path), 0), []byte("user.a\x00"), []byte("x")
	e := ringEntry{opcode: ringXattr, length: 1}
	e.addr, e.offset = uint64(uintptr(unsafe.Pointer(&name[0]))), uint64(uintptr(unsafe.Pointer(&value[0])))
	e.addr3 = uint64(uintptr(unsafe.Pointer(&p[0])))
	return pinned(func() error { return ring(e) }, p, name, value)
}

// tryWays tries every way on a file that a rule protects and on one that no rule names, and says what differs from
// what is expected. Each works on files of its own.
func tryWays(t *testing.T, g *guard, ways map[string]func(p, d string) error, making, user bool) {
	t.Helper()
	d := publicDir(t)
	owner := 0
	if user {
		owner = 1001
	}
	for _, dir := range []string{"/blocked", "/free"} {
		for name := range ways {
			at := d + dir + "/" + name
			write(t, at+"/f", "0123456789", 0o666)
			write(t, d+"/beside/"+name+dir+"/spare", "x", 0o666)
			for _, path := range []string{d + dir, at, at + "/f", d + "/beside/" + name, d + "/beside/" + name + dir, d + "/beside/" + name + dir + "/spare"} {
				if err := os.Chown(path, owner, owner); err != nil {
					t.Fatal(err)
				}
			}
			if making {
				if err := os.Remove(at + "/f"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	protect := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPattern, d+"/blocked/**")
	protect.Rule.ReadOnly = !making
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, protect)})
	for _, dir := range []string{"/blocked", "/free"} {
		var script []string
		if user {
			script = append(script, "become")
		}
		names := slices.Sorted(maps.Keys(ways))
		for _, name := range names {
			script = append(script, "way "+name+" "+d+dir+"/"+name+"/f "+d+"/beside/"+name+dir)
		}
		got := try(t, script...)
		got = got[len(got)-len(names):]
		events := g.seen(t)
		for i, name := range names {
			expected := "ok"
			if dir == "/blocked" {
				expected = "EACCES"
			}
			if got[i] != expected {
				t.Errorf("%s of a file in %s, user %v: %s, want %s", name, dir, user, got[i], expected)
			}
			told := func(line string) bool { return strings.Contains(line, d+"/blocked/"+name+"/") }
			if dir == "/blocked" && !slices.ContainsFunc(events, told) {
				t.Errorf("%s of a blocked file was not told of", name)
			}
		}
	}
}

// TestWaysToChange changes a read-only file in every way, as root and as an unprivileged user.
func TestWaysToChange(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	tryWays(t, g, changes, false, false)
	tryWays(t, g, changes, false, true)
	tryWays(t, g, changesAsRoot, false, false)
}

// TestWaysToMake makes things of every kind in a blocked directory.
func TestWaysToMake(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	tryWays(t, g, makings, true, false)
	tryWays(t, g, makings, true, true)
	tryWays(t, g, makingsAsRoot, true, false)
}

// TestHeldMappings maps files through descriptors that are older than the ruleset, and raises what was mapped before.
func TestHeldMappings(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, name := range []string{"/secret", "/fixed", "/free"} {
		write(t, d+name, strings.Repeat("x", 4096), 0o666)
	}
	fixed := block(d + "/fixed")
	fixed.Rule.ReadOnly = true
	var before, rest []string
	for _, name := range []string{"/secret", "/fixed", "/free"} {
		before = append(before, "fd-open "+d+name+" rw", "fd-map-keep "+d+name)
		for _, use := range []string{"map-private", "map-shared", "map-shared-write", "map-raise", "raise-kept"} {
			rest = append(rest, "fd-"+use+" "+d+name)
		}
	}
	got := after(t, before, func() {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/secret"), fixed)})
	}, rest...)
	want(t, got, "EACCES", "EACCES", "EACCES", "EACCES", "EACCES", "ok", "ok", "EACCES", "EACCES", "EACCES", "ok", "ok", "ok", "ok", "ok")
	for _, line := range g.seen(t) {
		if !strings.Contains(line, "denied by p0000") {
			t.Error(line)
		}
	}
	// On a stacked filesystem the mapping is of a file below.
	m := d + "/merged"
	for _, step := range []func() error{
		directories(m, d+"/o"), mount("tmpfs", d+"/o", "tmpfs", 0, ""), directories(d+"/o/l", d+"/o/u", d+"/o/w"), put(d + "/o/l/f"),
		mount("overlay", m, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", d+"/o")),
		put(m + "/f"), put(m + "/g"),
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = errors.Join(syscall.Unmount(m, 0), syscall.Unmount(d+"/o", 0)) })
	got = after(t, []string{"fd-open " + m + "/f rw", "fd-map-keep " + m + "/f", "fd-open " + m + "/g rw", "fd-map-keep " + m + "/g"}, func() {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
			rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPattern, m+"/f*"))})
	}, "fd-raise-kept "+m+"/f", "fd-raise-kept "+m+"/g", "fd-map-shared "+m+"/f", "fd-map-shared "+m+"/g", "fd-read "+m+"/f x", "fd-read "+m+"/g x")
	want(t, got, "EACCES", "ok", "EACCES", "ok", "EACCES", "ok")
}

// heldMap carries out the operations of a probe that map what it holds.
func heldMap(f []string) (known bool, err error) {
	const both = unix.PROT_READ | unix.PROT_WRITE
	fd := kept[f[min(1, len(f)-1)]]
	switch f[0] {
	case "fd-map-keep":
		keptMaps[f[1]], err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	case "fd-map-private":
		_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	case "fd-map-shared":
		err = mapShared(fd, unix.PROT_READ, 0)
	case "fd-map-shared-write":
		err = mapShared(fd, both, 0)
	case "fd-map-raise":
		err = mapShared(fd, unix.PROT_READ, both)
	case "fd-raise-kept":
		err = unix.Mprotect(keptMaps[f[1]], both)
	default:
		return false, nil
	}
	return true, err
}

// keptMaps are the mappings that a probe holds, by path.
var keptMaps = map[string][]byte{}
