// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
)

// CheckPath refuses a path that a release may not contain.
func CheckPath(p string) error {
	switch {
	case p == "" || len(p) > maxPath:
		return refuse(ErrPath, "a path of %d bytes", len(p))
	case !fs.ValidPath(p) || p == ".":
		return refuse(ErrPath, "%q is absolute, leaves the release or is not clean", p)
	case strings.Count(p, "/") >= maxDepth:
		return refuse(ErrLimits, "%q is deeper than %d", p, maxDepth)
	}
	if i := strings.IndexFunc(p, notInPath); i >= 0 {
		return refuse(ErrPath, "%q has a character that is not allowed", p)
	}
	for part := range strings.SplitSeq(strings.ToLower(p), "/") {
		if part == ".git" || part == MetaDir {
			return refuse(ErrPath, "%q: %s is not part of a release", p, part)
		}
	}
	return nil
}

func notInPath(c rune) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return false
	}
	return !strings.ContainsRune("._/-", c)
}

// checkFileList checks the list itself: paths, order (so that one set of files has one document), unique
// after case folding, no file that is also a directory, sizes and digests in range.
func checkFileList(files []ReleaseFile) error {
	if len(files) > maxFiles {
		return refuse(ErrLimits, "%d files, more than %d", len(files), maxFiles)
	}
	var total int64
	folded := make(map[string]string, len(files))
	for i, f := range files {
		if err := CheckPath(f.Path); err != nil {
			return err
		}
		if other, ok := folded[strings.ToLower(f.Path)]; ok {
			return refuse(ErrPath, "%q and %q differ only in case, or are doubled", other, f.Path)
		}
		folded[strings.ToLower(f.Path)] = f.Path
		if i > 0 && files[i-1].Path >= f.Path {
			return refuse(ErrNotCanonical, "release.json: files are not sorted at %q", f.Path)
		}
		if f.Size < 0 || f.Size > maxFileBytes {
			return refuse(ErrLimits, "%s: %d bytes, more than %d", f.Path, f.Size, maxFileBytes)
		}
		if total += f.Size; total > maxTotalBytes {
			return refuse(ErrLimits, "more than %d bytes in all", maxTotalBytes)
		}
		if !hexDigest.MatchString(f.SHA256) {
			return refuse(ErrMalformed, "release.json: %s: sha256 is not 64 lower-case hex digits", f.Path)
		}
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if other, ok := folded[strings.ToLower(dir)]; ok {
				return refuse(ErrPath, "%q is both a file and a directory", other)
			}
		}
	}
	return nil
}

// readListed reads every listed file once and keeps its bytes, so that what was checked is what is used. Of those that
// the host keeps already only the digest is compared: the bytes are, whenever they are read.
func readListed(fsys fs.FS, files []ReleaseFile) (contents, error) {
	part, ok := fsys.(*partFS)
	if !ok {
		part = &partFS{}
	}
	out := contents{list: files, memory: make(memFS, len(files)-min(len(files), len(part.known))), kept: part.kept}
	for i := range files {
		f := &files[i]
		if sum, known := part.known[f.Path]; known {
			if sum != f.sum() || !part.kept.Has(sum, f.Size) {
				return contents{}, refuse(ErrAltered, "%s has another size or sha256 than the signed one", f.Path)
			}
			continue
		}
		data, err := readOne(fsys, f)
		if err != nil {
			return contents{}, err
		}
		out.memory[f.Path] = data
	}
	return out, nil
}

func readOne(fsys fs.FS, f *ReleaseFile) ([]byte, error) {
	data, err := readBounded(fsys, f.Path, f.Size)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse(ErrAltered, "%s is listed but missing", f.Path)
	case err != nil:
		return nil, err
	case int64(len(data)) != f.Size:
		return nil, refuse(ErrAltered, "%s has another size than the signed %d bytes", f.Path, f.Size)
	}
	if sha256.Sum256(data) != f.sum() {
		return nil, refuse(ErrAltered, "%s has another sha256 than the signed one", f.Path)
	}
	return data, nil
}

// readBounded reads a regular file. One byte more than limit is read at most, so a longer file shows.
//
// Out of memory nothing is copied: what a transport brought and what Verify keeps are the same bytes, once.
func readBounded(fsys fs.FS, name string, limit int64) ([]byte, error) {
	if m, ok := inMemory(fsys); ok {
		if data, ok := m[name]; ok {
			return data[:min(int64(len(data)), limit+1)], nil
		}
	}
	if info, err := lstat(fsys, name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, refuse(ErrPath, "%s is not a regular file", name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func inMemory(fsys fs.FS) (memFS, bool) {
	if p, ok := fsys.(*partFS); ok {
		return p.memFS, true
	}
	m, ok := fsys.(memFS)
	return m, ok
}

// lstat does not follow a link when the file system can say so (os.DirFS can).
func lstat(fsys fs.FS, name string) (fs.FileInfo, error) {
	if l, ok := fsys.(fs.ReadLinkFS); ok {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if info, err := l.Lstat(dir); err == nil && !info.IsDir() {
				return nil, refuse(ErrPath, "%s is not a directory", dir)
			}
		}
		return l.Lstat(name)
	}
	return fs.Stat(fsys, name)
}
