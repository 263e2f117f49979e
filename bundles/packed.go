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
)

// packed is a release in one file: a frame's header, one line of JSON that lists the files, and their bytes one after
// the other. It is written without a copy of them, and what is read are parts of the one buffer that the file was read
// into: a release of 10,000 policies is in memory once.
type packed struct {
	header []byte
	index  []byte
	files  map[string][]byte
	order  []packedFile
}

type packedIndex struct {
	Revision Revision     `json:"revision"`
	Files    []packedFile `json:"files"`
}

type packedFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

func pack(rev Revision, files map[string][]byte) (*packed, error) {
	index := packedIndex{Revision: rev}
	for _, path := range sortedNames(files) {
		index.Files = append(index.Files, packedFile{path, int64(len(files[path]))})
	}
	text, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	p := &packed{index: append(text, '\n'), files: files, order: index.Files}
	sum := sha256.New()
	n, err := p.payload(sum)
	p.header = fmt.Appendf(nil, "%s %d %s\n", cacheMagic, n, hex.EncodeToString(sum.Sum(nil)))
	return p, err
}

// payload writes everything behind the header.
func (p *packed) payload(w io.Writer) (n int64, err error) {
	parts := [][]byte{p.index}
	for _, f := range p.order {
		parts = append(parts, p.files[f.Path])
	}
	for _, part := range parts {
		m, err := w.Write(part)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p *packed) write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 256<<10)
	if _, err := buffered.Write(p.header); err != nil {
		return err
	}
	if _, err := p.payload(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// isAt says whether the file at path is this very release, undamaged.
func (p *packed) isAt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	header := make([]byte, len(p.header))
	if _, err := io.ReadFull(f, header); err != nil || !bytes.Equal(header, p.header) {
		return false
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, maxCached))
	return err == nil && string(fmt.Appendf(nil, "%s %d %s\n", cacheMagic, n, hex.EncodeToString(sum.Sum(nil)))) == string(p.header)
}

// unpack is the inverse of write. The files are parts of data.
func unpack(data []byte) (*Raw, error) {
	payload, err := unframe(cacheMagic, data)
	if err != nil {
		return nil, err
	}
	text, rest, _ := bytes.Cut(payload, []byte("\n"))
	var index packedIndex
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, refuse(ErrTorn, "the list of files").because(err)
	}
	files := make(memFS, len(index.Files))
	for _, f := range index.Files {
		if f.Size < 0 || f.Size > int64(len(rest)) {
			return nil, refuse(ErrTorn, "%q has %d bytes, and %d are left", f.Path, f.Size, len(rest))
		}
		files[f.Path], rest = rest[:f.Size:f.Size], rest[f.Size:]
	}
	if len(rest) > 0 || len(files) != len(index.Files) {
		return nil, refuse(ErrTorn, "%d bytes are of no file, or a file is listed twice", len(rest))
	}
	return &Raw{Revision: index.Revision, FS: files}, nil
}
