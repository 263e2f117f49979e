// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// packed is a release in one file: a frame's header, one line of JSON that lists the files, and their bytes one after
// the other, first the documents and then the listed files. It is written without a copy of them, those that another
// file of the cache keeps out of that, and what is read are parts of the one buffer that the file was read into.
type packed struct {
	index     packedIndex
	text      []byte // the index
	documents map[string][]byte
	files     *contents
}

type packedIndex struct {
	Revision Revision     `json:"revision"`
	Files    []packedFile `json:"files"`
}

type packedFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

func pack(rev Revision, documents map[string][]byte, files *contents) (*packed, error) {
	p := &packed{index: packedIndex{Revision: rev}, documents: documents, files: files}
	for _, path := range sortedNames(documents) {
		p.index.Files = append(p.index.Files, packedFile{path, int64(len(documents[path]))})
	}
	for _, f := range files.list {
		p.index.Files = append(p.index.Files, packedFile{f.Path, f.Size})
	}
	text, err := json.Marshal(p.index)
	p.text = append(text, '\n')
	return p, err
}

// length is how many bytes follow the header.
func (p *packed) length() int64 {
	n := int64(len(p.text))
	for _, f := range p.index.Files {
		n += f.Size
	}
	return n
}

func (p *packed) header(sum Sum) []byte {
	return fmt.Appendf(nil, "%s %d %s\n", cacheMagic, p.length(), hex.EncodeToString(sum[:]))
}

// offset is where the first file begins.
func (p *packed) offset() int64 { return int64(len(p.header(Sum{})) + len(p.text)) }

// payload writes everything behind the header, and answers its digest.
func (p *packed) payload(w io.Writer) (sum Sum, err error) {
	hash := sha256.New()
	both := io.MultiWriter(hash, w)
	if _, err := both.Write(p.text); err != nil {
		return sum, err
	}
	for _, path := range sortedNames(p.documents) {
		if _, err := both.Write(p.documents[path]); err != nil {
			return sum, err
		}
	}
	err = p.files.each(func(_ *ReleaseFile, data []byte) error {
		_, err := both.Write(data)
		return err
	})
	hash.Sum(sum[:0])
	return sum, err
}

// write leaves room for the header, whose digest is known at the end.
func (p *packed) write(f *os.File) error {
	buffered := bufio.NewWriterSize(f, 64<<10)
	if _, err := buffered.Write(p.header(Sum{})); err != nil {
		return err
	}
	sum, err := p.payload(buffered)
	if err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	_, err = f.WriteAt(p.header(sum), 0)
	return err
}

// isAt says whether the file at path is this very release, undamaged.
func (p *packed) isAt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	sum, err := p.payload(io.Discard)
	if err != nil {
		return false
	}
	want := p.header(sum)
	header := make([]byte, len(want))
	if _, err := io.ReadFull(f, header); err != nil || !bytes.Equal(header, want) {
		return false
	}
	hash := sha256.New()
	n, err := io.Copy(hash, io.LimitReader(f, maxCached))
	return err == nil && n == p.length() && bytes.Equal(hash.Sum(nil), sum[:])
}

// kept is where the listed files lie in the file at path, the first of all beginning at offset.
func (i *packedIndex) kept(path string, offset int64, listed []ReleaseFile) *Kept {
	sums := make(map[string]*ReleaseFile, len(listed))
	for n := range listed {
		sums[listed[n].Path] = &listed[n]
	}
	k := &Kept{path: path, files: make(map[Sum]place, len(listed))}
	for _, f := range i.Files {
		if one := sums[f.Path]; one != nil {
			k.files[one.sum()] = place{offset, f.Size}
		}
		offset += f.Size
	}
	return k
}

// unpack is the inverse of write; offset is where the first file begins. The files are parts of data, and the documents
// are not, so that they do not hold it.
func unpack(data []byte) (raw *Raw, index *packedIndex, offset int64, err error) {
	payload, err := unframe(cacheMagic, data)
	if err != nil {
		return nil, nil, 0, err
	}
	text, rest, _ := bytes.Cut(payload, []byte("\n"))
	offset = int64(len(data) - len(rest))
	index = &packedIndex{}
	if err := json.Unmarshal(text, index); err != nil {
		return nil, nil, 0, refuse(ErrTorn, "the list of files").because(err)
	}
	files := make(memFS, len(index.Files))
	for _, f := range index.Files {
		if f.Size < 0 || f.Size > int64(len(rest)) {
			return nil, nil, 0, refuse(ErrTorn, "%q has %d bytes, and %d are left", f.Path, f.Size, len(rest))
		}
		files[f.Path], rest = rest[:f.Size:f.Size], rest[f.Size:]
		if strings.HasPrefix(f.Path, MetaDir+"/") {
			files[f.Path] = slices.Clone(files[f.Path])
		}
	}
	if len(rest) > 0 || len(files) != len(index.Files) {
		return nil, nil, 0, refuse(ErrTorn, "%d bytes are of no file, or a file is listed twice", len(rest))
	}
	return &Raw{Revision: index.Revision, FS: files}, index, offset, nil
}
