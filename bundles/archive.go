// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteArchive writes files as tar+gzip. The same files give the same bytes: sorted, one mode, no times, no
// owners, no directories.
func WriteArchive(w io.Writer, files map[string][]byte) error {
	zw, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(0, 0).UTC()}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := tw.Write(files[name]); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), zw.Close())
}

// ArchiveKind says what an archive may hold.
type ArchiveKind int

const (
	// Payload is a release's listed files alone: nothing of .muster.
	Payload ArchiveKind = iota
	// Whole is everything of a release, its documents and signatures too.
	Whole
)

// maxRatio is how much larger than its compressed bytes an archive may become, beyond a first megabyte. Policies
// that repeat themselves reach about 60; a bomb reaches 1,000.
const maxRatio = 200

// ReadArchive reads what WriteArchive wrote, from a stranger: bytes, files, depth and ratio are bounded while
// streaming; a link, a device, a directory, a doubled or escaping name is an error, and so is anything after the end.
func ReadArchive(r io.Reader, kind ArchiveKind) (map[string][]byte, error) {
	files, _, err := ReadArchiveBut(r, kind, nil)
	return files, err
}

// ReadArchiveBut is ReadArchive for a host that keeps some files already: of those it answers the digests instead.
func ReadArchiveBut(r io.Reader, kind ArchiveKind, kept *Kept) (files map[string][]byte, known map[string]Sum, err error) {
	in := &counter{r: bufio.NewReaderSize(r, 64<<10)}
	zr, err := gzip.NewReader(in)
	if err != nil {
		return nil, nil, archiveError(err, "it is not gzip")
	}
	zr.Multistream(false)
	out := &inflated{r: zr, in: in, left: maxTotalBytes + maxReleaseDoc + maxFiles*1024}
	content := &archive{kind: kind, kept: kept, files: map[string][]byte{}, known: map[string]Sum{}}
	if err := content.read(tar.NewReader(out)); err != nil {
		return nil, nil, err
	}
	// What stands after the last file is padding, and nothing stands after the archive: both are read, so that
	// whoever checks a digest over r sees every byte.
	if err := onlyZeros(out); err != nil {
		return nil, nil, err
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(in, 1)); err != nil {
		return nil, nil, archiveError(err, "it cannot be read to its end")
	} else if n > 0 {
		return nil, nil, refuse(ErrMalformed, "there is something after the archive")
	}
	return content.files, content.known, nil
}

func archiveError(err error, what string) error {
	if _, ok := errors.AsType[*Refusal](err); ok {
		return err
	}
	return refuse(ErrMalformed, "the archive: %s", what).because(err)
}

// archive is what was read of one.
type archive struct {
	kind  ArchiveKind
	kept  *Kept
	files map[string][]byte
	known map[string]Sum
}

func (a *archive) read(tr *tar.Reader) error {
	folded := map[string]bool{}
	var total int64
	var buf bytes.Buffer
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return archiveError(err, "it is not tar")
		}
		if err := a.kind.check(h); err != nil {
			return err
		}
		name := strings.ToLower(h.Name)
		if total += h.Size; total > maxTotalBytes+maxReleaseDoc || len(folded) >= maxFiles+maxDocuments {
			return refuse(ErrLimits, "the archive holds more than %d files or %d bytes", maxFiles, maxTotalBytes)
		}
		if folded[name] {
			return refuse(ErrPath, "%q is in the archive twice", h.Name)
		}
		folded[name] = true
		// Not by the header's word alone: memory is taken as bytes come.
		buf.Reset()
		if _, err := buf.ReadFrom(io.LimitReader(tr, maxFileBytes)); err != nil {
			return archiveError(err, h.Name)
		}
		a.take(h.Name, buf.Bytes())
	}
}

// take notes a file; data is good until it returns.
func (a *archive) take(name string, data []byte) {
	if a.kept != nil {
		if sum := sha256.Sum256(data); a.kept.Has(sum, int64(len(data))) {
			a.known[name] = sum
			return
		}
	}
	a.files[name] = append(make([]byte, 0, len(data)), data...)
}

func (k ArchiveKind) check(h *tar.Header) error {
	switch {
	case h.Typeflag != tar.TypeReg:
		return refuse(ErrPath, "%q is not a regular file", h.Name)
	case h.Size < 0 || h.Size > maxFileBytes:
		return refuse(ErrLimits, "%q has %d bytes, more than %d", h.Name, h.Size, maxFileBytes)
	}
	if k == Whole {
		if rest, ok := strings.CutPrefix(h.Name, MetaDir+"/"); ok {
			return CheckPath(rest)
		}
	}
	return CheckPath(h.Name)
}

func onlyZeros(r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return refuse(ErrMalformed, "there is something after the archive's last file")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return archiveError(err, "its end cannot be read")
		}
	}
}

// counter counts what was read of the compressed stream. It is an io.ByteReader, so that gzip takes no byte too many.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// inflated bounds what comes out, by itself and against what went in.
type inflated struct {
	r    io.Reader
	in   *counter
	n    int64
	left int64
}

func (i *inflated) Read(p []byte) (int, error) {
	if i.n > i.left || i.n > 1<<20 && i.n > maxRatio*i.in.n {
		return 0, refuse(ErrLimits, "the archive unpacks to more than is allowed (%d bytes of %d compressed ones)", i.n, i.in.n)
	}
	n, err := i.r.Read(p)
	i.n += int64(n)
	return n, err
}
