// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
)

// UnknownPlaceError says that self-protection is in force and does not know a path for the agent's own.
type UnknownPlaceError struct{ Path string }

func (e *UnknownPlaceError) Error() string {
	return fmt.Sprintf("self-protection does not know %s for the agent's: it began with another configuration", e.Path)
}

// Name is the error's name for programs.
func (e *UnknownPlaceError) Name() string { return "unknown-place" }

// Hint is what the operator can do.
func (e *UnknownPlaceError) Hint() string {
	return "start the agent with the configuration that it had; a stand-down lets it have another one"
}

// inodeOf is how a place is found again: filesystems whose inodes need a generation beside are told apart well enough.
type inodeOf struct {
	inode  uint64
	device uint32
}

// KnownPlaces answers an UnknownPlaceError when self-protection is pinned, below root or where it is by default, and one of
// these paths is there and not what it was told to be the agent's. Whoever makes process 1 start the genuine executable may
// have it find another configuration, by another unit or by mounts of its own.
func KnownPlaces(root string, paths []string) error {
	roots := []string{cmp.Or(root, defaultRoot), defaultRoot}
	for _, root := range slices.Compact(roots) {
		pinned, _ := filepath.Glob(filepath.Join(root, "*", "link_"+selfPrefix+"open")) // the pattern is in order
		for _, pin := range pinned {
			places, err := readPlaces(pins{dir: filepath.Dir(pin)}.mapPath(bpf.MusterMapPlaces))
			if err != nil {
				return err
			}
			if err := allKnown(places, paths); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPlaces reads what is the agent's with all below it.
func readPlaces(pin string) (map[inodeOf]bool, error) {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("self-protection: read what is the agent's: %w", recognition(err))
	}
	defer m.Close()
	found := map[inodeOf]bool{}
	var key bpf.MusterPlaceKey
	var place uint32
	all := m.Iterate()
	for all.Next(&key, &place) {
		if bpf.MusterPlace(place)&bpf.MusterPlacePLACE_TREE != 0 {
			found[inodeOf{key.Inode, key.Device}] = true
		}
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("self-protection: read what is the agent's: %w", err)
	}
	return found, nil
}

func allKnown(places map[inodeOf]bool, paths []string) error {
	table, err := os.Open(mountTable)
	if err != nil {
		return fmt.Errorf("self-protection: %w", err)
	}
	defer table.Close()
	mounts, err := readMounts(table)
	if err != nil {
		return err
	}
	for _, name := range paths {
		at, filesystem, err := locate(mounts, name)
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			continue // who needs it says so
		case err != nil:
			return fmt.Errorf("self-protection: look at %s: %w", name, err)
		case filesystem == "overlay": // it tells other numbers than the kernel knows
			at.inode = 0
		}
		if !places[at] {
			return &UnknownPlaceError{Path: name}
		}
	}
	return nil
}

// locate is where a path leads: its inode, and the filesystem as the kernel itself numbers it, which of btrfs stat does not
// tell.
func locate(mounts []mountPoint, name string) (inodeOf, string, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return inodeOf{}, "", err //nolint:wrapcheck // the caller says of what
	}
	defer unix.Close(fd)
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return inodeOf{}, "", err //nolint:wrapcheck // the caller says of what
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return inodeOf{}, "", err //nolint:wrapcheck // names the file
	}
	for line := range strings.Lines(string(info)) {
		number, is := strings.CutPrefix(line, "mnt_id:")
		if !is {
			continue
		}
		id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		at := slices.IndexFunc(mounts, func(m mountPoint) bool { return m.id == id })
		if err != nil || at < 0 {
			break
		}
		return inodeOf{s.Ino, mounts[at].device}, mounts[at].filesystem, nil
	}
	return inodeOf{}, "", errors.New("its mount is not listed")
}
