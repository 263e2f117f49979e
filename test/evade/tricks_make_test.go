// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// namedLater gives a file that was opened without a name its name in the directory.
func namedLater(dir, target string) (attempt, error) {
	fd, err := unix.Open(dir+"/w", unix.O_TMPFILE|unix.O_WRONLY, 0o666)
	return func() ([]byte, error) {
		from := fmt.Sprintf("/proc/self/fd/%d", fd)
		return reached(unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, dir+"/"+target, unix.AT_SYMLINK_FOLLOW))
	}, err
}

func boundSocket(dir, target string) (attempt, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	return func() ([]byte, error) {
		return reached(unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/" + target}))
	}, err
}

func heldMkdir(dir, target string) (attempt, error) {
	path := dir + "/" + target
	fd, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return func() ([]byte, error) { return reached(unix.Mkdirat(fd, filepath.Base(path), 0o777)) }, err
}

// borrowed lays a file without data over the object's directory: where that is from is said by attributes that only root may
// set.
func borrowed(dir, target string) (attempt, error) {
	path := dir + "/" + target
	layer, at := dir+"/w/layer", dir+"/w/merged"
	front := layer + "/front"
	err := errors.Join(os.Mkdir(layer, 0o755), os.Mkdir(at, 0o755), os.WriteFile(front, nil, 0o644),
		os.Truncate(front, int64(len(token))+1),
		unix.Setxattr(front, "trusted.overlay.metacopy", nil, 0),
		unix.Setxattr(front, "trusted.overlay.redirect", []byte("/"+filepath.Base(path)), 0))
	return func() ([]byte, error) {
		layers := "metacopy=on,redirect_dir=follow,lowerdir=" + layer + ":" + filepath.Dir(path)
		if err := unix.Mount("o", at, "overlay", 0, layers); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(at + "/front")
		return text, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}, err
}
