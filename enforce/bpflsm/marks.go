// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
)

// markBatch is how many files are held open at a time.
const markBatch = 256

var (
	// absent are the answers for a path that names no file now, or never can.
	absent = []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG}
	// unasked are the answers that say nothing about the path. A filter of system calls that lets no openat2 pass (ENOSYS,
	// what systemd answers) would leave every file unmarked.
	unasked = []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.ENOSYS}
)

// markExisting marks the files that have a protected name now. Their device, number and generation as the
// kernel knows them are told by an iterator over this process's own descriptors; no file is opened for
// reading, so no device or pipe notices.
//
// What was cleared before is judged again: a file may have got a mark that was cleared by another name.
func (b *Backend) markExisting(ctx context.Context, image *Image) error {
	return errors.Join(b.markProtected(ctx, image), endClearances(b.maps[bpf.MusterMapClearing]))
}

func (b *Backend) markProtected(ctx context.Context, image *Image) error {
	paths := make([]string, 0, len(image.Protected))
	hashes := map[string]uint64{}
	for hash, path := range image.Protected {
		hashes[path] = hash
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for batch := range slices.Chunk(paths, markBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.markBatch(ctx, batch, hashes); err != nil {
			return err
		}
	}
	return nil
}

// marksShare bounds what renaming directories can make the agent do: of the time, one part of so many.
const marksShare = 20

// follow marks the protected files again when directories have been renamed: a protected name below one of them may mean
// another file now, which nobody has used by that name yet.
func (b *Backend) follow(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil || b.loaded == nil || time.Now().Before(b.nextMarks) {
		return nil
	}
	moved, err := readCounter(b.maps[bpf.MusterMapCounters], bpf.MusterCounterCOUNT_DIRECTORIES_MOVED)
	if err != nil || moved == b.moved {
		return err
	}
	begin := time.Now()
	err = b.markExisting(ctx, b.last)
	end := time.Now()
	b.nextMarks = end.Add(marksShare * end.Sub(begin))
	if err == nil {
		b.moved = moved
	}
	return err
}

func (b *Backend) markBatch(ctx context.Context, paths []string, hashes map[string]uint64) error {
	held := map[uint32]uint64{}
	defer func() {
		for fd := range held {
			_ = unix.Close(int(fd))
		}
	}()
	for _, path := range paths {
		// Paths are resolved already; a link that is there now is somebody's who wants another file marked.
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
		})
		switch {
		case err == nil:
			held[uint32(fd)] = hashes[path]
		case errors.Is(err, unix.ELOOP):
			// no file has this name
		case slices.Contains(absent, err):
			// marked when it comes into being
		case slices.Contains(unasked, err):
			return fmt.Errorf("mark %s: %w", path, err)
		default:
			// One file that cannot be looked at (a dead server, a broken disk) must not keep every other rule
			// from being enforced: the name alone protects it, until somebody uses that name.
			b.reader.lose(lossMarkUnread, 1)
			b.log.Warn("protected file not marked", "path", path, "error", err)
		}
	}
	if len(held) == 0 {
		return nil
	}
	out, err := runIterator(ctx, b.loaded.Programs[bpf.MusterProgMarkInodes])
	if err != nil {
		return err
	}
	return b.markFound(out, held)
}

func (b *Backend) markFound(out []byte, held map[uint32]uint64) error {
	size := int(unsafe.Sizeof(bpf.MusterFoundInode{}))
	seen := 0
	for ; len(out) >= size; out = out[size:] {
		var f bpf.MusterFoundInode
		if _, err := binary.Decode(out, binary.LittleEndian, &f); err != nil {
			return fmt.Errorf("read inodes: %w", err)
		}
		hash, ours := held[f.Fd]
		if !ours {
			continue
		}
		seen++
		key := bpf.MusterMarkKey{Inode: f.Inode, Device: f.Device, Generation: f.Generation}
		err := addMark(b.maps[bpf.MusterMapMarks], key, hash)
		if errors.Is(err, errCrowded) {
			b.reader.lose(lossMarkOverflow, 1)
			continue // the name alone protects it
		}
		if errors.Is(err, unix.E2BIG) {
			b.reader.lose(lossMarkFull, 1)
			continue // the same: whoever fills the map must not keep rulesets from being published
		}
		if err != nil {
			return err
		}
	}
	if seen < len(held) {
		return fmt.Errorf("mark files: %d of %d descriptors were seen", seen, len(held))
	}
	return nil
}

// addMark adds a protected path to those that an inode is known by. The kernel side adds too: what it adds
// at the same moment is lost and comes back with the next access by that name.
func addMark(marks *ebpf.Map, key bpf.MusterMarkKey, hash uint64) error {
	var m bpf.MusterMark
	if err := marks.Lookup(&key, &m); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read a mark: %w", err)
	}
	for i, had := range m.Paths {
		if had == hash {
			return nil
		}
		if had == 0 {
			m.Paths[i] = hash
			if err := marks.Put(&key, &m); err != nil {
				return fmt.Errorf("write a mark: %w", err)
			}
			return nil
		}
	}
	return errCrowded
}

// errCrowded says that an inode is known by as many protected paths as fit already.
var errCrowded = errors.New("inode has too many protected paths")

// sweepMarks removes the marks whose rules are gone.
func (b *Backend) sweepMarks(image *Image) error {
	marks := b.maps[bpf.MusterMapMarks]
	var key bpf.MusterMarkKey
	var m bpf.MusterMark
	var stale []bpf.MusterMarkKey
	all := marks.Iterate()
	for all.Next(&key, &m) {
		if !slices.ContainsFunc(m.Paths[:], func(hash uint64) bool { return image.Protected[hash] != "" }) {
			stale = append(stale, key)
		}
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read marks: %w", err)
	}
	for _, key := range stale {
		if err := marks.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a mark: %w", err)
		}
	}
	return nil
}
