// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func linkBeforeElsewhere(dir, _ string) (attempt, error) {
	c := exec.Command("/bin/sh", "-ec", `mkdir "$W/b"; mount "$(findmnt -no SOURCE /)" "$W/b"; ln "$W/b$S" "$W/b$W/l"; umount "$W/b"`)
	_, err := output(c)
	return func() ([]byte, error) { return os.ReadFile(dir + "/w/l") }, err
}

// cloned is a copy of the mount at dir that is mounted nowhere.
func cloned(dir string) (int, error) {
	return unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE)
}

func attached(tree int, dir, name string) ([]byte, error) {
	at := dir + "/w/attached"
	if err := os.Mkdir(at, 0o777); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(at, name))
	return text, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
}

func readAttached(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		tree, err := cloned(filepath.Dir(dir + "/" + target))
		if err != nil {
			return nil, err
		}
		return attached(tree, dir, filepath.Base(target))
	}, nil
}

// readMapped attaches a copy under which the users are others.
func readMapped(dir, target string) (attempt, error) {
	c := exec.Command("/bin/sleep", "60")
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all}
	err := c.Start()
	return func() ([]byte, error) {
		defer func() { _, _ = c.Process.Kill(), c.Wait() }()
		users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Process.Pid))
		if err != nil {
			return nil, err
		}
		tree, err := cloned(filepath.Dir(dir + "/" + target))
		if err != nil {
			return nil, err
		}
		mapping := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &mapping); err != nil {
			return nil, err
		}
		return attached(tree, dir, filepath.Base(target))
	}, err
}

// openHandle opens by a handle through the mount that holds the file.
func openHandle(mountAt, path string, flags int) (int, error) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return -1, err
	}
	mount, err := unix.Open(mountAt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	return unix.OpenByHandleAt(mount, handle, flags)
}

func readHandleElsewhere(dir, target string) (attempt, error) {
	at := dir + "/w/b"
	err := errors.Join(os.Mkdir(at, 0o777), unix.Mount(dir+"/w", at, "", unix.MS_BIND, ""))
	return func() ([]byte, error) {
		defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
		return contents(openHandle(at, dir+"/"+target, unix.O_RDONLY))
	}, err
}

func names(fd int, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b := make([]byte, page)
	n, err := unix.Getdents(fd, b)
	return b[:max(n, 0)], err
}

func listHandle(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		return names(openHandle("/opt", dir+"/"+target, unix.O_RDONLY|unix.O_DIRECTORY))
	}, nil
}

func heldList(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return func() ([]byte, error) { return names(fd, nil) }, err
}

func heldListAgain(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_PATH|unix.O_DIRECTORY, 0)
	return func() ([]byte, error) { return names(unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)) }, err
}

func heldDirectory(dir, target string) (attempt, error) {
	fd, err := unix.Open(filepath.Dir(dir+"/"+target), unix.O_PATH|unix.O_DIRECTORY, 0)
	return func() ([]byte, error) {
		return contents(unix.Openat(fd, filepath.Base(target), unix.O_RDONLY, 0))
	}, err
}

// mapFiles opens what another process has mapped by the kernel's link to it.
func mapFiles(dir, target string) (attempt, error) {
	f, err := os.Open(dir + "/" + target)
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	at := uintptr(unsafe.Pointer(&b[0]))
	return func() ([]byte, error) { return os.ReadFile(fmt.Sprintf("/proc/self/map_files/%x-%x", at, at+page)) }, f.Close()
}

// foldingDisk is mounted anew at the end: a name that the kernel remembers would be found as it was spelled first.
const foldingDisk = `m=$D/disk; mkdir "$m"; truncate -s 4M "$W/img"; modprobe loop; mke2fs -qt ext4 -O casefold -E encoding=utf8 "$W/img"; mount -o loop "$W/img" "$m"
mkdir "$m/keys" "$m/exact"; chattr +F "$m/keys" "$m/exact"; for f in keys/secret.key exact/secret; do echo ` + token + ` >"$m/$f"; done
umount "$m"; mount -o loop "$W/img" "$m"`

// folded reads a file by a spelling that is not its own.
func folded(name string) func(dir, target string) (attempt, error) {
	return func(dir, _ string) (attempt, error) {
		_, err := output(exec.Command("/bin/sh", "-ec", foldingDisk))
		return func() ([]byte, error) {
			text, err := os.ReadFile(dir + "/disk/" + name)
			return text, errors.Join(err, unix.Unmount(dir+"/disk", unix.MNT_DETACH))
		}, err
	}
}

// fanotified lets who may read the file bring an open descriptor of it.
func fanotified(dir, target string) (attempt, error) {
	group, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	path := dir + "/" + target
	err = unix.FanotifyMark(group, unix.FAN_MARK_ADD, unix.FAN_OPEN|unix.FAN_ACCESS, unix.AT_FDCWD, path)
	return func() ([]byte, error) {
		if err := exec.Command(dir+"/bin/updater", path).Run(); err != nil {
			return nil, err
		}
		event := make([]byte, page)
		n, err := unix.Read(group, event)
		if err != nil {
			return nil, err
		}
		if n < int(unsafe.Sizeof(unix.FanotifyEventMetadata{})) {
			return nil, errNothing
		}
		fd := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&event[0])).Fd
		if fd < 0 {
			return nil, errNothing
		}
		return contents(int(fd), nil)
	}, err
}

var errNothing = errors.New("nothing came")

// heldPipe writes into a named pipe before and reads afterwards.
func heldPipe(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(token))
	}
	return func() ([]byte, error) {
		b := make([]byte, room)
		n, err := unix.Read(fd, b)
		return b[:max(n, 0)], err
	}, err
}

// heldPipeOfNowhere opens it through a mount that is taken away.
func heldPipeOfNowhere(dir, target string) (attempt, error) {
	at := dir + "/w/b"
	if err := errors.Join(os.Mkdir(at, 0o777), unix.Mount(filepath.Dir(dir+"/"+target), at, "", unix.MS_BIND, "")); err != nil {
		return nil, err
	}
	read, err := heldPipe(at, filepath.Base(target))
	return read, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
}

func heldPipeAgain(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(token))
	}
	return func() ([]byte, error) {
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		b := make([]byte, room)
		n, err := unix.Read(again, b)
		return b[:max(n, 0)], err
	}, err
}

// reached is what a way answers that has come to something without contents.
func reached(err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return []byte(token), nil
}

func heldDevice(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_RDONLY, 0)
	return func() ([]byte, error) {
		_, err := unix.Read(fd, make([]byte, room))
		return reached(err)
	}, err
}

func heldDeviceMapped(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_RDONLY, 0)
	return func() ([]byte, error) {
		_, err := unix.Mmap(fd, 0, page, unix.PROT_READ, unix.MAP_PRIVATE)
		return reached(err)
	}, err
}

// heldLoop makes a disk of a file that is open already.
func heldLoop(dir, target string) (attempt, error) {
	if _, err := output(exec.Command("modprobe", "loop")); err != nil {
		return nil, err
	}
	f, err := os.Open(dir + "/" + target)
	return func() ([]byte, error) {
		name, err := exec.Command("losetup", "-f").Output()
		if err != nil {
			return nil, err
		}
		disk, err := os.Open(strings.TrimSpace(string(name)))
		if err != nil {
			return nil, err
		}
		defer disk.Close()
		if err := unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_SET_FD, int(f.Fd())); err != nil {
			return nil, err
		}
		text := make([]byte, 2*page)
		_, err = disk.ReadAt(text, 0)
		return text, errors.Join(err, unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_CLR_FD, 0))
	}, err
}

// runRunning runs a program that runs already, by the kernel's link to it.
func runRunning(dir, target string) (attempt, error) {
	c := exec.Command(dir+"/"+target, "x")
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true} // it stops at its first instruction
	err := c.Start()
	return func() ([]byte, error) {
		defer func() { _ = c.Process.Kill() }()
		return output(exec.Command(fmt.Sprintf("/proc/%d/exe", c.Process.Pid), token))
	}, err
}

func runExchanged(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		other := dir + "/bin/other"
		if err := unix.Renameat2(unix.AT_FDCWD, dir+"/"+target, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
			return nil, err
		}
		return output(exec.Command(other, token))
	}, nil
}

func runMemory(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		text, err := os.ReadFile(dir + "/" + target)
		if err != nil {
			return nil, err
		}
		fd, err := unix.MemfdCreate("tool", 0)
		if err != nil {
			return nil, err
		}
		if _, err := unix.Write(fd, text); err != nil {
			return nil, err
		}
		return output(exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd), token))
	}, nil
}

// runRegistered has the kernel open the program before the policies (flag F), for every file of a suffix.
func runRegistered(dir, target string) (attempt, error) {
	const formats = "/proc/sys/fs/binfmt_misc"
	_ = unix.Mount("binfmt_misc", formats, "binfmt_misc", 0, "") // it may be there
	x := dir + "/w/x.evf"
	err := errors.Join(os.WriteFile(x, nil, 0o755), os.WriteFile(formats+"/register", []byte(":evadef:E::evf::"+dir+"/"+target+":F"), 0o200))
	return func() ([]byte, error) {
		out, err := output(exec.Command(x, token))
		return out, errors.Join(err, os.WriteFile(formats+"/evadef", []byte("-1"), 0o200))
	}, err
}

func writeLinkBefore(dir, target string) (attempt, error) {
	link := dir + "/w/before"
	err := os.Link(dir+"/"+target, link)
	return func() ([]byte, error) { return nil, os.WriteFile(link, []byte("x"), 0) }, err
}

func timesByPath(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_PATH, 0)
	return func() ([]byte, error) {
		return nil, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), make([]unix.Timespec, 2), 0)
	}, err
}

// accounted has the kernel write a record of each process that ends.
func accounted(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		if err := unix.Acct(dir + "/" + target); err != nil {
			return nil, err
		}
		err := exec.Command("/bin/true").Run()
		return nil, errors.Join(err, unix.Acct(""))
	}, nil
}
