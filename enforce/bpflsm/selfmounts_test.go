// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// bindFor binds one place to another for the while.
func bindFor(from, to string, flags uintptr, run func() error) error {
	if err := unix.Mount(from, to, "", flags, ""); err != nil {
		return err
	}
	return errors.Join(run(), unix.Unmount(to, 0))
}

// unmountTree takes away the copy of a place and of all that is mounted there, which goes from there, too: unmount-tree
// PLACE AT. One whose mounts are shared with nobody may go.
func unmountTree(a []string) error {
	if err := unix.Mount(a[0], a[1], "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	err := unix.Unmount(a[1], unix.MNT_DETACH)
	if err == nil {
		return nil
	}
	if alone := unix.Mount("none", a[1], "", unix.MS_PRIVATE|unix.MS_REC, ""); alone != nil {
		return alone
	}
	if alone := unix.Unmount(a[1], unix.MNT_DETACH); alone != nil {
		return fmt.Errorf("private: %w", unix.EIO)
	}
	return err
}

// overlay does something to a file by way of a filesystem that is stacked on its directory: overlay-… DIRECTORY FILE AT.
func overlay(a []string, run func(string) error) error {
	work := filepath.Join(filepath.Dir(a[0]), "stacked")
	if err := errors.Join(os.MkdirAll(work+"/work", 0o700), os.MkdirAll(work+"/lower", 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("overlay", a[2], "overlay", 0, "lowerdir="+work+"/lower,upperdir="+a[0]+",workdir="+work+"/work"); err != nil {
		return fmt.Errorf("stack: %w", unix.EIO)
	}
	err := run(filepath.Join(a[2], a[1]))
	return errors.Join(err, unix.Unmount(a[2], 0))
}

// moveTree moves a mount the new way.
func moveTree(a []string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, a[0], unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, a[1], unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func mountOver(a []string) error {
	if err := unix.Mount("none", a[0], "tmpfs", 0, ""); err != nil {
		return err
	}
	return unix.Unmount(a[0], 0)
}

// inOtherMounts runs in a mount namespace whose mounts are still shared with the host's.
func inOtherMounts(run func() error) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with the process
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return run()
}

// mountShared mounts in another namespace, from where it spreads to the host's: the mount point's parent is shared.
func mountShared(a []string) error {
	return inOtherMounts(func() error { return mountOver(a) })
}

// unmountCopy takes a mount away in another namespace, from where that spreads.
func unmountCopy(a []string) error {
	return inOtherMounts(func() error { return unix.Unmount(a[0], unix.MNT_DETACH) })
}

// writeByBind makes a file below a bind mount of the directory: write-by-bind DIRECTORY AT.
func writeByBind(a []string) error {
	if err := unix.Mount(a[0], a[1], "", unix.MS_BIND, ""); err != nil {
		return err
	}
	err := closed(os.OpenFile(filepath.Join(a[1], "new"), os.O_CREATE|os.O_WRONLY, 0o600))
	return errors.Join(err, unix.Unmount(a[1], 0))
}
