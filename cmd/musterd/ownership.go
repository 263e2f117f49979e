// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// errUnsafeFile says that somebody else than root or this user could change what decides over the host.
var errUnsafeFile = errors.New("could be changed by others")

// maxLinks is how many symbolic links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// checkOwnership refuses a file that somebody else than root or this user could change or exchange: by its own owner and
// mode, by a directory's above it, or by those of a symbolic link's way, as sshd's StrictModes does. A file that is not
// there is nobody's.
func checkOwnership(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for range maxLinks {
		next, err := checkWay(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if next == "" || err != nil {
			return err
		}
		path = next
	}
	return fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// checkWay looks at everything from the root directory to path. At a symbolic link it stops and returns where that leads.
func checkWay(path string) (string, error) {
	at := "/"
	for rest := strings.TrimPrefix(path, "/"); ; {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			target, err := os.Readlink(at)
			if err != nil {
				return "", err
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(at), target)
			}
			return filepath.Join(target, rest), nil
		}
		if err := checkOwner(at, info); err != nil {
			return "", err
		}
		if rest == "" {
			return "", nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, name)
	}
}

func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s %w: it belongs to user %d: chown root %s", path, errUnsafeFile, stat.Uid, path)
	}
	// In a sticky directory nobody exchanges what is another's.
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && (!mode.IsDir() || mode&fs.ModeSticky == 0) {
		return fmt.Errorf("%s %w: its mode is %04o: chmod go-w %s", path, errUnsafeFile, mode.Perm(), path)
	}
	return nil
}
