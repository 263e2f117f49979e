// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
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
	b.made = map[bpf.MusterMarkKey][]uint64{}
	return b.markNames(ctx, image, image.Protected)
}

// surroundings are what the files of protected names were looked for in. As long as they stay, a file gets such a name only by
// ways that the kernel side follows.
type surroundings struct {
	moved  uint64            // how many directories and symlinks had got names
	lost   uint64            // how many marks the kernel side had no room for
	mounts [sha256.Size]byte // of the mount table
}

// markChanged marks before a ruleset comes into force: the files of the names that the one in force does not protect, when
// those of the others are marked. Else it is markExisting.
func (b *Backend) markChanged(ctx context.Context, image *Image) error {
	followed, err := b.followed(image)
	if err != nil {
		return err
	}
	if !followed {
		return b.markExisting(ctx, image)
	}
	fresh := map[uint64]string{}
	for hash, path := range image.Protected {
		if b.marked.Protected[hash] == "" {
			fresh[hash] = path
		}
	}
	for key, hashes := range b.made {
		kept := slices.DeleteFunc(hashes, func(hash uint64) bool { return image.Protected[hash] == "" })
		if b.made[key] = kept; len(kept) == 0 {
			delete(b.made, key)
		}
	}
	return b.markNames(ctx, image, fresh)
}

// followed says whether every file with a name that the ruleset in force protects has its mark. The same ruleset again is a
// repair, for which nothing is taken for granted. In audit mode files may be renamed whose names are both protected, and of
// what would have been denied the kernel side does not look at the second name.
func (b *Backend) followed(image *Image) (bool, error) {
	if b.around == nil || b.marked == nil || b.marked.ID == image.ID || b.marked.ruleset.Mode != enforce.ModeEnforce {
		return false, nil
	}
	h, err := publishedHeader(b.maps[bpf.MusterMapSlots])
	if err != nil || h == nil || h.Id != b.marked.ID {
		return false, err
	}
	now, err := b.lookAround()
	return now == *b.around, err
}

func (b *Backend) lookAround() (s surroundings, err error) {
	counters := b.maps[bpf.MusterMapCounters]
	if s.moved, err = readCounter(counters, bpf.MusterCounterCOUNT_NAMES_MOVED); err != nil {
		return s, err
	}
	for _, reason := range []bpf.MusterCounter{bpf.MusterCounterCOUNT_MARK_FULL, bpf.MusterCounterCOUNT_MARK_OVERFLOW} {
		n, err := readCounter(counters, reason)
		if err != nil {
			return s, err
		}
		s.lost += n
	}
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return s, fmt.Errorf("read mounts: %w", err)
	}
	s.mounts = sha256.Sum256(table)
	return s, nil
}

// markNames marks the files of some of an image's names; those of the others are marked.
func (b *Backend) markNames(ctx context.Context, image *Image, names map[uint64]string) error {
	b.marked, b.around, b.unmarked = image, nil, false
	around, err := b.lookAround()
	if err != nil {
		return err
	}
	err = errors.Join(b.markProtected(ctx, names), b.markKept(image), endClearances(b.maps[bpf.MusterMapClearing]))
	if err == nil && !b.unmarked {
		b.around = &around
	}
	return err
}

func (b *Backend) markProtected(ctx context.Context, names map[uint64]string) error {
	hashes := make(map[string]uint64, len(names))
	for hash, path := range names {
		hashes[path] = hash
	}
	return b.identify(ctx, slices.Sorted(maps.Keys(hashes)), func(path string, key bpf.MusterMarkKey) error {
		made, err := b.mark(key, hashes[path])
		if made {
			b.made[key] = append(b.made[key], hashes[path])
		}
		return err
	})
}

// mark adds one mark. That there is no room for it is counted, and no error: the name alone protects the file then, and
// whoever fills the map must not keep rulesets from being published.
func (b *Backend) mark(key bpf.MusterMarkKey, hash uint64) (made bool, err error) {
	err = addMark(b.maps[bpf.MusterMapMarks], key, hash)
	switch {
	case errors.Is(err, errCrowded):
		b.unmarked = true
		b.reader.lose(lossMarkOverflow, 1)
		return false, nil
	case errors.Is(err, unix.E2BIG):
		b.unmarked = true
		b.reader.lose(lossMarkFull, 1)
		return false, nil
	}
	return err == nil, err
}

// lostMarks are the protected files that have a mark by the agent's work and lack it in the kernel. A mark that went with its
// file is not lost.
func (b *Backend) lostMarks(ctx context.Context) (lost []string, err error) {
	gone := map[string]bpf.MusterMarkKey{}
	for key, hashes := range b.made {
		var m bpf.MusterMark
		if err := b.maps[bpf.MusterMapMarks].Lookup(&key, &m); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read a mark: %w", err)
		}
		for _, hash := range hashes {
			if !slices.Contains(m.Paths[:], hash) {
				gone[b.marked.Protected[hash]] = key
			}
		}
	}
	err = b.identify(ctx, slices.Sorted(maps.Keys(gone)), func(path string, key bpf.MusterMarkKey) error {
		if key == gone[path] {
			lost = append(lost, path)
		}
		return nil
	})
	return lost, err
}

// marksShare bounds what renaming directories can make the agent do: of the time, one part of so many.
const marksShare = 20

// NamesMoved implements enforce.NameWatcher.
func (b *Backend) NamesMoved() <-chan struct{} { return b.namesMoved }

// follow marks the protected files again when directories or symlinks got names: a protected name below one of them may
// mean another file now, which nobody has used by that name yet. Whoever resolves paths is told.
func (b *Backend) follow(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.marked == nil || b.loaded == nil || time.Now().Before(b.nextMarks) {
		return nil
	}
	moved, err := readCounter(b.maps[bpf.MusterMapCounters], bpf.MusterCounterCOUNT_NAMES_MOVED)
	if err != nil || moved == b.moved {
		return err
	}
	begin := time.Now()
	err = b.markExisting(ctx, b.marked)
	end := time.Now()
	b.nextMarks = end.Add(marksShare * end.Sub(begin))
	if err != nil {
		return err
	}
	b.moved = moved
	select {
	case b.namesMoved <- struct{}{}:
	default:
	}
	return nil
}

// identify tells the inodes that paths name now, as the kernel knows them. Paths that name no file are left out.
func (b *Backend) identify(ctx context.Context, paths []string, found func(path string, key bpf.MusterMarkKey) error) error {
	for batch := range slices.Chunk(paths, markBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.identifyBatch(ctx, batch, found); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) identifyBatch(ctx context.Context, paths []string, found func(string, bpf.MusterMarkKey) error) error {
	held := map[uint32]string{}
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
			held[uint32(fd)] = path
		case errors.Is(err, unix.ELOOP):
			// no file has this name
		case slices.Contains(absent, err):
			// marked when it comes into being
		case slices.Contains(unasked, err):
			return fmt.Errorf("mark %s: %w", path, err)
		default:
			// One file that cannot be looked at (a dead server, a broken disk) must not keep every other rule
			// from being enforced: the name alone protects it, until somebody uses that name.
			b.unmarked = true
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
	return readInodes(out, held, found)
}

// readInodes reads what the iterator over this process's descriptors printed.
func readInodes(out []byte, held map[uint32]string, found func(string, bpf.MusterMarkKey) error) error {
	size := int(unsafe.Sizeof(bpf.MusterFoundInode{}))
	seen := 0
	for ; len(out) >= size; out = out[size:] {
		var f bpf.MusterFoundInode
		if _, err := binary.Decode(out, binary.LittleEndian, &f); err != nil {
			return fmt.Errorf("read inodes: %w", err)
		}
		path, ours := held[f.Fd]
		if !ours {
			continue
		}
		seen++
		if err := found(path, bpf.MusterMarkKey{Inode: f.Inode, Device: f.Device, Generation: f.Generation}); err != nil {
			return err
		}
	}
	if seen < len(held) {
		return fmt.Errorf("identify files: %d of %d descriptors were seen", seen, len(held))
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
	var stale []bpf.MusterMarkKey
	err := eachMark(marks, func(key bpf.MusterMarkKey, m *bpf.MusterMark) {
		if !slices.ContainsFunc(m.Paths[:], func(hash uint64) bool { return image.Protected[hash] != "" }) {
			stale = append(stale, key)
		}
	})
	if err != nil {
		return err
	}
	for _, key := range stale {
		if err := marks.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a mark: %w", err)
		}
	}
	return nil
}

// eachMark calls found for every mark. One that comes or goes meanwhile may be left out.
func eachMark(marks *ebpf.Map, found func(bpf.MusterMarkKey, *bpf.MusterMark)) error {
	var at ebpf.MapBatchCursor
	keys, values := make([]bpf.MusterMarkKey, marksAtOnce), make([]bpf.MusterMark, marksAtOnce)
	for {
		n, err := marks.BatchLookup(&at, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read marks: %w", err)
		}
		for i := range n {
			found(keys[i], &values[i])
		}
		if err != nil {
			return nil
		}
	}
}

// marksAtOnce is how many the kernel is asked for at a time: more than have one place in its table.
const marksAtOnce = 4096
