// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is what a way does once the policies are in force: what it got hold of, and why not.
type attempt = func() ([]byte, error)

func contents(fd int, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	return io.ReadAll(f)
}

func readOpenat2(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		root, err := unix.Open(dir, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		return contents(unix.Openat2(root, "/"+target, &unix.OpenHow{Flags: unix.O_RDONLY, Resolve: unix.RESOLVE_IN_ROOT}))
	}, nil
}

func readHandle(dir, target string) (attempt, error) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir+"/"+target, 0)
	if err != nil {
		return nil, err
	}
	mount, err := unix.Open("/opt", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return func() ([]byte, error) { return contents(unix.OpenByHandleAt(mount, handle, unix.O_RDONLY)) }, err
}

func readPathDescriptor(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_PATH, 0)
	return func() ([]byte, error) {
		return contents(unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0))
	}, err
}

// readDetached reads below a copy of the tree that is mounted nowhere.
func readDetached(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
		if err != nil {
			return nil, err
		}
		return contents(unix.Openat(tree, target, unix.O_RDONLY, 0))
	}, nil
}

func linkBefore(dir, target string) (attempt, error) {
	link := dir + "/w/before"
	err := os.Link(dir+"/"+target, link)
	return func() ([]byte, error) { return os.ReadFile(link) }, err
}

func linkDescriptor(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_PATH, 0)
	return func() ([]byte, error) {
		link := dir + "/w/link"
		if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, link, unix.AT_SYMLINK_FOLLOW); err != nil {
			return nil, err
		}
		return os.ReadFile(link)
	}, err
}

func swap(dir, target string) error {
	return unix.Renameat2(unix.AT_FDCWD, dir+"/"+target, unix.AT_FDCWD, dir+"/w/mine", unix.RENAME_EXCHANGE)
}

func exchange(dir, target string) (attempt, error) {
	return func() ([]byte, error) {
		if err := swap(dir, target); err != nil {
			return nil, err
		}
		return os.ReadFile(dir + "/w/mine")
	}, nil
}

func exchangeReadOnly(dir, target string) (attempt, error) {
	return func() ([]byte, error) { return nil, swap(dir, target) }, nil
}

func truncatingOpen(dir, target string) (attempt, error) {
	return func() ([]byte, error) { return contents(unix.Open(dir+"/"+target, unix.O_RDONLY|unix.O_TRUNC, 0)) }, nil
}

func setAttribute(dir, target string) (attempt, error) {
	return func() ([]byte, error) { return nil, unix.Setxattr(dir+"/"+target, "user.evade", []byte("x"), 0) }, nil
}

// setACL grants user 5 everything: version 2, then {tag, permissions, id} as linux/posix_acl_xattr.h has them.
func setACL(dir, target string) (attempt, error) {
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][8]byte{
		{1, 0, 7, 0, 255, 255, 255, 255},
		{2, 0, 7, 0, 5, 0, 0, 0},
		{4, 0, 7, 0, 255, 255, 255, 255},
		{16, 0, 7, 0, 255, 255, 255, 255},
		{32, 0, 7, 0, 255, 255, 255, 255},
	} {
		acl = append(acl, e[:]...)
	}
	return func() ([]byte, error) {
		return nil, unix.Setxattr(dir+"/"+target, "system.posix_acl_access", acl, 0)
	}, nil
}

func output(c *exec.Cmd) ([]byte, error) {
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return out, err
}

func runLinkBefore(dir, target string) (attempt, error) {
	link := dir + "/w/before"
	err := os.Link(dir+"/"+target, link)
	return func() ([]byte, error) { return output(exec.Command(link, token)) }, err
}

// runDescriptor is fexecve: the caller is replaced.
func runDescriptor(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/"+target, unix.O_PATH, 0)
	return func() ([]byte, error) {
		empty, _ := unix.BytePtrFromString("")
		name, _ := unix.BytePtrFromString("tool")
		word, _ := unix.BytePtrFromString(token)
		argv := []*byte{name, word, nil}
		_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)), uintptr(unsafe.Pointer(&argv[0])), 0, unix.AT_EMPTY_PATH, 0)
		return nil, errno
	}, err
}

func posedName(dir, target string) (attempt, error) {
	name, err := unix.BytePtrFromString("updater")
	return func() ([]byte, error) {
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0); err != nil {
			return nil, err
		}
		return os.ReadFile(dir + "/" + target)
	}, err
}

// passed sends the descriptor to itself before the policies and takes it out of the socket afterwards.
func passed(dir, target string) (attempt, error) {
	f, err := os.Open(dir + "/" + target)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		rights := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), rights, 0)
		if err != nil {
			return nil, err
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) == 0 {
			return nil, fmt.Errorf("no descriptor came: %w", err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, err
		}
		return contents(fds[0], nil)
	}, nil
}

// holder is another process that holds the file as its descriptor 3.
func holder(dir, target string) (*exec.Cmd, error) {
	f, err := os.Open(dir + "/" + target)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := exec.Command("/bin/sleep", "60")
	c.ExtraFiles = []*os.File{f}
	return c, c.Start()
}

func taken(dir, target string) (attempt, error) {
	c, err := holder(dir, target)
	return func() ([]byte, error) {
		defer func() { _, _ = c.Process.Kill(), c.Wait() }()
		pidfd, err := unix.PidfdOpen(c.Process.Pid, 0)
		if err != nil {
			return nil, err
		}
		return contents(unix.PidfdGetfd(pidfd, 3, 0))
	}, err
}

func otherProcess(dir, target string) (attempt, error) {
	c, err := holder(dir, target)
	return func() ([]byte, error) {
		defer func() { _, _ = c.Process.Kill(), c.Wait() }()
		return os.ReadFile(filepath.Join("/proc", fmt.Sprint(c.Process.Pid), "fd", "3"))
	}, err
}
