// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// frame wraps a payload so that a truncated or damaged file is noticed: one header line with a magic word,
// the payload's length and its sha256.
func frame(magic string, payload []byte) []byte {
	sum := sha256.Sum256(payload)
	head := fmt.Sprintf("%s %d %s\n", magic, len(payload), hex.EncodeToString(sum[:]))
	return append([]byte(head), payload...)
}

// unframe answers the payload, or ErrTorn.
func unframe(magic string, data []byte) ([]byte, error) {
	head, payload, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, refuse(ErrTorn, "%d bytes without a header", len(data))
	}
	sum := sha256.Sum256(payload)
	want := fmt.Sprintf("%s %d %s", magic, len(payload), hex.EncodeToString(sum[:]))
	if string(head) != want {
		return nil, refuse(ErrTorn, "the header does not match the %d bytes after it", len(payload))
	}
	return payload, nil
}

// readFileBounded reads a regular file of at most limit bytes, following no link.
func readFileBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, refuse(ErrTorn, "%s is not a regular file of at most %d bytes", filepath.Base(path), limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One buffer of the right size: what is read may be large, and is kept.
	data := make([]byte, info.Size())
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // it became shorter; the frame tells
	}
	return data[:n], err
}

// tempPrefix begins the name of a file that is not complete yet.
const tempPrefix = ".muster-tmp-"

// WriteAtomic replaces a file so that a crash at any moment leaves the old bytes or the new ones.
func WriteAtomic(path string, data []byte, mode fs.FileMode) error {
	return writeAtomic(path, mode, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

func writeAtomic(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	werr := write(f)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
