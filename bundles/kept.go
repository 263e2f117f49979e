// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Sum is the SHA-256 of a file.
type Sum = [sha256.Size]byte

// Kept is the files of an accepted release in the host's cache, by their digests: the host need not have them in memory,
// and a source need not bring them again. Nothing in the cache is believed: what is read is compared with its digest.
type Kept struct {
	path  string
	files map[Sum]place
}

type place struct{ offset, size int64 }

// Has says whether a file with this digest and size is kept. A nil Kept has none.
func (k *Kept) Has(sum Sum, size int64) bool {
	if k == nil {
		return false
	}
	p, ok := k.files[sum]
	return ok && p.size == size
}

// Read answers the file with this digest.
func (k *Kept) Read(sum Sum) (data []byte, err error) {
	err = k.each([]Sum{sum}, func(_ int, read []byte) error { data = bytes.Clone(read); return nil })
	return data, err
}

// each calls use for the files with these digests, in their order; the bytes are good until it returns.
func (k *Kept) each(sums []Sum, use func(i int, data []byte) error) error {
	if len(sums) == 0 {
		return nil
	}
	if k == nil {
		return refuse(ErrTorn, "nothing of it is kept")
	}
	f, err := os.Open(k.path)
	if err != nil {
		return refuse(ErrTorn, "the cache").because(err)
	}
	defer f.Close()
	var buf []byte
	for i, sum := range sums {
		p, ok := k.files[sum]
		if !ok {
			return refuse(ErrTorn, "the cache has no file with digest %x", sum)
		}
		buf = slices.Grow(buf[:0], int(p.size))[:p.size]
		if _, err := io.ReadFull(io.NewSectionReader(f, p.offset, p.size), buf); err != nil {
			return refuse(ErrTorn, "the cache").because(err)
		}
		if sha256.Sum256(buf) != sum {
			return refuse(ErrTorn, "the cache holds other bytes than those with digest %x", sum)
		}
		if err := use(i, buf); err != nil {
			return err
		}
	}
	return nil
}

// contents are the listed files of a verified release, and its file system. Those that the cache keeps are read from there.
type contents struct {
	list   []ReleaseFile // sorted by path
	memory memFS
	kept   *Kept
}

// sum is the signed digest; checkFileList has seen that it is one.
func (f *ReleaseFile) sum() (sum Sum) {
	_, _ = hex.Decode(sum[:], []byte(f.SHA256))
	return sum
}

func (c *contents) find(name string) (*ReleaseFile, bool) {
	i, ok := slices.BinarySearchFunc(c.list, name, func(f ReleaseFile, name string) int { return strings.Compare(f.Path, name) })
	if !ok {
		return nil, false
	}
	return &c.list[i], true
}

// SHA256 is the digest that the file was compared with: who read the same bytes before need not read them again.
func (c *contents) SHA256(name string) (sum Sum, ok bool) {
	f, ok := c.find(name)
	if ok {
		sum = f.sum()
	}
	return sum, ok
}

// each calls use for every file, in the order of the list; the bytes are good until it returns.
func (c *contents) each(use func(f *ReleaseFile, data []byte) error) error {
	for at := 0; at < len(c.list); {
		if data, ok := c.memory[c.list[at].Path]; ok {
			if err := use(&c.list[at], data); err != nil {
				return err
			}
			at++
			continue
		}
		var sums []Sum
		for end := at; end < len(c.list); end++ {
			if _, ok := c.memory[c.list[end].Path]; ok {
				break
			}
			sums = append(sums, c.list[end].sum())
		}
		err := c.kept.each(sums, func(i int, data []byte) error { return use(&c.list[at+i], data) })
		if err != nil {
			return err
		}
		at += len(sums)
	}
	return nil
}

// all is every file in memory.
func (c *contents) all() (memFS, error) {
	if len(c.memory) == len(c.list) {
		return c.memory, nil
	}
	out := make(memFS, len(c.list))
	return out, c.each(func(f *ReleaseFile, data []byte) error {
		out[f.Path] = bytes.Clone(data)
		return nil
	})
}

// Open implements fs.FS.
func (c *contents) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if _, ok := c.find(name); ok {
		data, err := c.ReadFile(name)
		return &memFile{info: memInfo{path.Base(name), int64(len(data)), false}, Reader: bytes.NewReader(data)}, err
	}
	entries, err := c.ReadDir(name)
	return &memDir{info: memInfo{path.Base(name), 0, true}, entries: entries}, err
}

// ReadFile implements fs.ReadFileFS.
func (c *contents) ReadFile(name string) (data []byte, err error) {
	f, ok := c.find(name)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if data, ok := c.memory[name]; ok {
		return bytes.Clone(data), nil
	}
	if data, err = c.kept.Read(f.sum()); err != nil {
		err = &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, err
}

// ReadDir implements fs.ReadDirFS: the directories are those that the files imply.
func (c *contents) ReadDir(dir string) ([]fs.DirEntry, error) {
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	from := func(least string) int {
		i, _ := slices.BinarySearchFunc(c.list, least, func(f ReleaseFile, name string) int { return strings.Compare(f.Path, name) })
		return i
	}
	var out []fs.DirEntry
	for at := from(prefix); at < len(c.list) && strings.HasPrefix(c.list[at].Path, prefix); {
		first, _, deeper := strings.Cut(c.list[at].Path[len(prefix):], "/")
		info := memInfo{first, c.list[at].Size, deeper}
		if deeper {
			info.size = 0
			at = from(prefix + first + "0") // what sorts behind everything in that directory
		} else {
			at++
		}
		out = append(out, fs.FileInfoToDirEntry(info))
	}
	if len(out) == 0 && dir != "." {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// partFS is a fetched release of which some files were not brought, because the host keeps them: known are their digests.
type partFS struct {
	memFS
	known map[string]Sum
	kept  *Kept
}

// NewPartFS is NewMemFS of a release that has besides, at the paths of known, files that are kept already.
func NewPartFS(files map[string][]byte, known map[string]Sum, kept *Kept) fs.FS {
	if len(known) == 0 {
		return memFS(files)
	}
	return &partFS{memFS: files, known: known, kept: kept}
}

// Open implements fs.FS.
func (p *partFS) Open(name string) (fs.File, error) {
	if sum, ok := p.known[name]; ok {
		data, err := p.kept.Read(sum)
		return &memFile{info: memInfo{path.Base(name), int64(len(data)), false}, Reader: bytes.NewReader(data)}, err
	}
	file, err := p.memFS.Open(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	dir, ok := file.(*memDir)
	if err == nil && !ok {
		return file, nil
	}
	// A directory may have files of both sorts.
	sizes := make(memFS, len(p.known))
	for path := range p.known {
		sizes[path] = nil
	}
	more := sizes.entries(name)
	if dir == nil {
		if len(more) == 0 {
			return nil, err
		}
		return &memDir{info: memInfo{path.Base(name), 0, true}, entries: more}, nil
	}
	dir.entries = slices.CompactFunc(slices.SortedFunc(slices.Values(slices.Concat(dir.entries, more)), byName), func(a, b fs.DirEntry) bool { return a.Name() == b.Name() })
	return dir, nil
}

func byName(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }
