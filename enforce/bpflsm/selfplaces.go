// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
)

// unitDirectories are where systemd looks for units, their additions, and what makes them. Distributions add to every
// service in the first, which are packages' own.
var unitDirectories = map[string]bpf.MusterPlace{
	"/usr/lib/systemd": bpf.MusterPlacePLACE_UNITS,
	"/etc/systemd":     bpf.MusterPlacePLACE_UNITS | bpf.MusterPlacePLACE_EVERY, "/run/systemd": bpf.MusterPlacePLACE_UNITS | bpf.MusterPlacePLACE_EVERY,
	"/usr/local/lib/systemd": bpf.MusterPlacePLACE_UNITS | bpf.MusterPlacePLACE_EVERY,
}

// selfPlaces are the places by path.
func (b *Backend) selfPlaces(who *selfIdentity) (map[string]bpf.MusterPlace, error) {
	places := places{}
	places.add(bpf.MusterPlacePLACE_TREE, b.pins.root, who.program)
	places.add(bpf.MusterPlacePLACE_TREE, b.self.Trees...)
	places.add(bpf.MusterPlacePLACE_RUN, b.self.Run...)
	if who.unit != "" {
		for dir, place := range unitDirectories {
			places.addUnits(place, dir, who.unit)
		}
		root, err := cgroupRoot(mountTable)
		if err != nil {
			return nil, err
		}
		places.add(bpf.MusterPlacePLACE_GROUPS, root)
	}
	for p := range places {
		for above := filepath.Dir(p); ; above = filepath.Dir(above) {
			places[above] |= bpf.MusterPlacePLACE_ABOVE
			if above == "/" {
				break
			}
		}
	}
	return places, nil
}

// places are what is the agent's, by paths without links.
type places map[string]bpf.MusterPlace

// add adds what is there of these, and each link on the way: who replaced it would name something else.
func (p places) add(place bpf.MusterPlace, paths ...string) {
	for _, name := range paths {
		resolved, err := filepath.EvalSymlinks(name)
		if err != nil {
			continue
		}
		p[resolved] |= place
		for _, link := range linksOf(name) {
			p[link] |= bpf.MusterPlacePLACE_TREE
		}
	}
}

// addUnits adds a directory of units, which nothing takes the place of, and those below it that hold links to the unit.
func (p places) addUnits(place bpf.MusterPlace, dir, unit string) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
			if resolved, err := filepath.EvalSymlinks(above); err == nil {
				p[resolved] |= bpf.MusterPlacePLACE_ABSENT
				return
			}
		}
	}
	p.add(place|bpf.MusterPlacePLACE_ABOVE, dir)
	links, _ := filepath.Glob(filepath.Join(resolved, "*", "*", unit)) // the pattern is in order
	for _, link := range links {
		p[filepath.Dir(link)] |= bpf.MusterPlacePLACE_ABOVE
	}
}

// linksOf are the symbolic links that the kernel follows to get to a path, without links on their own way.
func linksOf(name string) []string {
	var links []string
	at := "/"
	for rest := strings.Split(name, "/"); len(rest) > 0 && len(links) < 40; { // the kernel follows no more either
		next := filepath.Join(at, rest[0]) // which takes ".." as the kernel does, for at has no links
		rest = rest[1:]
		target, err := os.Readlink(next)
		if err != nil {
			at = next
			continue
		}
		links = append(links, next)
		rest = append(strings.Split(target, "/"), rest...)
		if filepath.IsAbs(target) {
			at = "/"
		}
	}
	return links
}

// coveringPlaces are those below which something is the agent's.
const coveringPlaces = bpf.MusterPlacePLACE_TREE | bpf.MusterPlacePLACE_RUN | bpf.MusterPlacePLACE_UNITS | bpf.MusterPlacePLACE_GROUPS

// placeKeys joins what was wanted of paths with the inodes that they name.
func placeKeys(wanted map[string]bpf.MusterPlace, found map[string]bpf.MusterFoundInode) map[bpf.MusterPlaceKey]bpf.MusterPlace {
	keys := map[bpf.MusterPlaceKey]bpf.MusterPlace{}
	for p, place := range wanted {
		f, there := found[p]
		if !there {
			continue
		}
		keys[bpf.MusterPlaceKey{Inode: f.Inode, Device: f.Device, Generation: f.PlaceGeneration}] |= place
		for i, under := range f.Under {
			if under != 0 {
				keys[bpf.MusterPlaceKey{Inode: under, Device: f.UnderDevice[i], Generation: f.UnderGeneration[i]}] |= bpf.MusterPlacePLACE_MOUNT
			}
		}
		if place&coveringPlaces != 0 {
			keys[bpf.MusterPlaceKey{Device: f.Device}] |= place
		}
	}
	return keys
}

// putPlaces makes the map hold these places and no others; first the new ones come, then the old ones go.
func putPlaces(m *ebpf.Map, keys map[bpf.MusterPlaceKey]bpf.MusterPlace) error {
	for key, place := range keys {
		if err := m.Put(&key, uint32(place)); err != nil {
			return fmt.Errorf("self-protection: note a place: %w", err)
		}
	}
	var key bpf.MusterPlaceKey
	var place uint32
	var stale []bpf.MusterPlaceKey
	all := m.Iterate()
	for all.Next(&key, &place) {
		if _, there := keys[key]; !there {
			stale = append(stale, key)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("self-protection: read the places: %w", err)
	}
	for _, key := range stale {
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("self-protection: forget a place: %w", err)
		}
	}
	return nil
}

// identify tells the inodes that paths name, as the kernel knows them; of a link its own. What is not there is left out; no
// file is opened for reading.
func identify(ctx context.Context, iterator *ebpf.Program, paths []string) (map[string]bpf.MusterFoundInode, error) {
	held := map[uint32]string{}
	defer func() {
		for fd := range held {
			_ = unix.Close(int(fd))
		}
	}()
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			held[uint32(fd)] = p
		case !slices.Contains(absent, err):
			return nil, fmt.Errorf("self-protection: look at %s: %w", p, err)
		}
	}
	out, err := runIterator(ctx, iterator)
	if err != nil {
		return nil, err
	}
	found := map[string]bpf.MusterFoundInode{}
	for size := int(unsafe.Sizeof(bpf.MusterFoundInode{})); len(out) >= size; out = out[size:] {
		var f bpf.MusterFoundInode
		if _, err := binary.Decode(out, binary.LittleEndian, &f); err != nil {
			return nil, fmt.Errorf("self-protection: read inodes: %w", err)
		}
		if p, ours := held[f.Fd]; ours {
			found[p] = f
		}
	}
	if len(found) < len(held) {
		return nil, fmt.Errorf("self-protection: %d of %d paths were seen", len(found), len(held))
	}
	return found, nil
}
