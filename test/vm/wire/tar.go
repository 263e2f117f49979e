// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Pack writes the file or directory at src into tw under name. Regular files, directories and symlinks only:
// the lab moves programs and results, not devices.
func Pack(tw *tar.Writer, src, name string) error {
	return filepath.WalkDir(src, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		return packOne(tw, path, filepath.Join(name, rel))
	})
}

func packOne(tw *tar.Writer, path, name string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link := ""
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case mode.IsRegular(), mode.IsDir():
	default:
		return nil
	}
	head, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("packing %s: %w", path, err)
	}
	head.Name = name
	head.Uid, head.Gid, head.Uname, head.Gname = 0, 0, "", ""
	if err := tw.WriteHeader(head); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows meanwhile is cut at the size its header announces.
	_, err = io.CopyN(tw, f, head.Size)
	return err
}

// Unpack writes the archive below dir, making parent directories as needed.
func Unpack(r io.Reader, dir string) error {
	tr := tar.NewReader(r)
	for {
		head, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end mark belongs to the stream still.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
		if err := unpackOne(tr, head, filepath.Join(dir, filepath.Clean("/"+head.Name))); err != nil {
			return fmt.Errorf("unpacking %s: %w", head.Name, err)
		}
	}
}

func unpackOne(r io.Reader, head *tar.Header, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := head.FileInfo().Mode()
	switch head.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, mode.Perm())
	case tar.TypeSymlink:
		return os.Symlink(head.Linkname, path)
	case tar.TypeReg:
	default:
		return nil
	}
	// A new inode, so that a running program of the same name is not "text busy".
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// The umask of whoever unpacks must not decide.
	return os.Chmod(path, mode.Perm())
}
