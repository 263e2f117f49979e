// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cacheDir is where kernels, the root image and the lab's locks live.
func cacheDir() (string, error) {
	dir := os.Getenv("MUSTER_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache directory: %w", err)
		}
		dir = filepath.Join(base, "muster")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// build returns the directory name of the cache, made first if it is absent. It is complete or
// absent: fill gets a directory aside, which is renamed when it is done. Parallel callers, other processes
// included, build once.
func build(ctx context.Context, name string, fill func(dir string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := lockAny(ctx, []string{dir + ".lock"})
	if err != nil {
		return "", fmt.Errorf("waiting for another process to build %s: %w", name, err)
	}
	defer lock.Close()
	if exists(dir) {
		return dir, nil
	}
	aside := dir + ".part"
	if err := os.RemoveAll(aside); err != nil {
		return "", err
	}
	if err := os.Mkdir(aside, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(aside)
	if err := fill(aside); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	return dir, os.Rename(aside, dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lockAny returns one of the files, locked against every other process; closing it unlocks. The lock belongs to
// the open file: a child that inherits it holds it too.
func lockAny(ctx context.Context, paths []string) (*os.File, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, path := range paths {
			f, err := tryLock(path)
			if err != nil || f != nil {
				return f, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLock returns nil without an error when somebody else holds the lock.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// slots is how many machines may run at once on this computer, over all processes: each takes about one core.
const slots = 2

func takeSlot(ctx context.Context) (*os.File, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	var paths []string
	for i := range slots {
		paths = append(paths, filepath.Join(cache, fmt.Sprintf("slot-%d.lock", i)))
	}
	f, err := lockAny(ctx, paths)
	if err != nil {
		return nil, fmt.Errorf("waiting for one of %d machine slots: %w", slots, err)
	}
	return f, nil
}
