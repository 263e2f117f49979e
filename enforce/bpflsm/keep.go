// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
)

// A file that a protected name does not lead to any more (a rotated log, say) is known by its mark only, and marks end
// with a boot. They are kept outside the kernel for that.

// keptMark is such a file.
type keptMark struct {
	// Filesystem is its f_fsid (statfs(2)) in hex: device numbers may change from boot to boot.
	Filesystem string `json:"filesystem"`
	Inode      uint64 `json:"inode"`
	Generation uint32 `json:"generation"`
	// Path is the protected name that it had.
	Path string `json:"path"`
}

// maxKept bounds what is kept; what goes beyond is said in the log, and known until the next boot only.
const maxKept = 4096

// lastingFilesystems have inode numbers, generations and an f_fsid that outlive a boot. btrfs is none of them: its
// subvolumes share inode numbers.
var lastingFilesystems = []string{"ext2", "ext3", "ext4", "xfs", "f2fs"}

// Keep answers the files that only their marks know, nil for none. Known is false while it cannot be said: before a ruleset
// was published, or seen in force.
func (b *Backend) Keep() (value []byte, known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.marked == nil {
		return nil, false, nil
	}
	kept, err := b.keptMarks()
	if err != nil || len(kept) == 0 {
		return nil, err == nil, err
	}
	value, err = json.Marshal(kept)
	return value, err == nil, err
}

func (b *Backend) keptMarks() ([]keptMark, error) {
	devices, err := lastingDevices(mountTable)
	if err != nil {
		return nil, err
	}
	kept := slices.Clone(b.kept) // those whose filesystem is not there yet
	err = eachMark(b.maps[bpf.MusterMapMarks], func(key bpf.MusterMarkKey, m *bpf.MusterMark) {
		filesystem, lasts := devices[key.Device]
		for _, hash := range m.Paths {
			path := b.marked.Protected[hash]
			if lasts && path != "" && !leadsTo(path, key) {
				kept = append(kept, keptMark{filesystem, key.Inode, key.Generation, path})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(kept, func(a, b keptMark) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Filesystem, b.Filesystem), cmp.Compare(a.Inode, b.Inode),
			cmp.Compare(a.Generation, b.Generation))
	})
	kept = slices.Compact(kept)
	if len(kept) > maxKept {
		b.log.Warn("not all files with a mark and no name are kept for the next boot", "files", len(kept), "kept", maxKept)
		kept = kept[:maxKept]
	}
	return kept, nil
}

// leadsTo says that a path leads to a file now.
func leadsTo(path string, key bpf.MusterMarkKey) bool {
	var s unix.Stat_t
	return unix.Lstat(path, &s) == nil && s.Ino == key.Inode && kernelDevice(s.Dev) == key.Device
}

// Restore takes back what Keep answered, before anything is published. It matters after a boot only: where there are marks
// already, they know better.
func (b *Backend) Restore(value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var kept []keptMark
	if err := json.Unmarshal(value, &kept); err != nil {
		return fmt.Errorf("kept marks: %w", err)
	}
	b.kept = kept[:min(len(kept), maxKept)]
	return nil
}

// markKept marks what was kept of the rules of an image. What is on a filesystem that is not mounted waits.
func (b *Backend) markKept(image *Image) error {
	if len(b.kept) == 0 {
		return nil
	}
	devices, err := lastingDevices(mountTable)
	if err != nil {
		return err
	}
	numbers := map[string]uint32{}
	for device, filesystem := range devices {
		numbers[filesystem] = device
	}
	hashes := map[string]uint64{}
	for hash, path := range image.Protected {
		hashes[path] = hash
	}
	var waiting []keptMark
	for _, k := range b.kept {
		device, mounted := numbers[k.Filesystem]
		hash, wanted := hashes[k.Path]
		switch {
		case !wanted:
			// its rule is gone
		case !mounted:
			waiting = append(waiting, k)
		default:
			if _, err := b.mark(bpf.MusterMarkKey{Inode: k.Inode, Device: device, Generation: k.Generation}, hash); err != nil {
				return err
			}
		}
	}
	b.kept = waiting
	return nil
}

// lastingDevices are the mounted filesystems whose inodes can be told after a boot: their f_fsid by device number, as
// the kernel has it. Only those of disks are asked: a server could let us wait.
func lastingDevices(table string) (map[uint32]string, error) {
	file, err := os.Open(table)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer file.Close()
	mounts, err := readMounts(file)
	if err != nil {
		return nil, err
	}
	return readLasting(mounts, identity), nil
}

func readLasting(mounts []mountPoint, identity func(mountPoint) string) map[uint32]string {
	found := map[uint32]string{}
	for _, m := range mounts {
		if found[m.device] != "" || !slices.Contains(lastingFilesystems, m.filesystem) {
			continue
		}
		if id := identity(m); id != "" {
			found[m.device] = id
		}
	}
	return found
}

// identity is the f_fsid of what is mounted there, "" when that is another device: hidden by another mount, or gone.
func identity(m mountPoint) string {
	var at unix.Stat_t
	var s unix.Statfs_t
	if unix.Stat(m.at, &at) != nil || kernelDevice(at.Dev) != m.device || unix.Statfs(m.at, &s) != nil || s.Fsid == (unix.Fsid{}) {
		return ""
	}
	return fmt.Sprintf("%08x%08x", uint32(s.Fsid.Val[0]), uint32(s.Fsid.Val[1]))
}
