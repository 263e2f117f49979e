// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the topmost group of the hierarchy of control groups (version 2) is mounted. What is attached
// there sees the packets of every group, whatever else is attached below.
func cgroupRoot(mountTable string) (string, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return "", fmt.Errorf("find the control groups: %w", err)
	}
	defer f.Close()
	mounts, err := readMounts(f)
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.filesystem == "cgroup2" && m.root == "/" {
			return m.at, nil
		}
	}
	return "", fmt.Errorf("%w: control groups of version 2 are not mounted", ErrUnsupported)
}

// seesPackets is true where there is a place to see packets from. Once there was one it stays true: whoever unmounts it
// afterwards must not turn rules into gaps.
func (b *Backend) seesPackets(mountTable string) bool {
	if b.packets.Load() {
		return true
	}
	_, err := cgroupRoot(mountTable)
	b.packets.Store(err == nil)
	return err == nil
}

// cgroupCondition says whether a link still holds its program at the topmost group: such a link can be emptied
// while its pin stays.
func (b *Backend) cgroupCondition(name string) (string, error) {
	l, err := b.pins.openLink(name)
	if l == nil || err != nil {
		return "missing", err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", name, err)
	}
	root, err := cgroupRoot(mountTable)
	if err != nil {
		return "", err
	}
	var stat unix.Stat_t
	if err := unix.Stat(root, &stat); err != nil {
		return "", fmt.Errorf("look at %s: %w", root, err)
	}
	if at := info.Cgroup(); at == nil || at.CgroupId != stat.Ino {
		return "detached", nil
	}
	return "", nil
}
