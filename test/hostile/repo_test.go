// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// branch is the channel of the tests' fleet.
const branch = plumbing.ReferenceName("refs/heads/muster/stable")

// repo writes objects byte by byte: git itself would not make most of what is needed here.
type repo struct {
	t     *testing.T
	dir   string
	store *filesystem.Storage
}

// entry is one entry of a tree.
type entry struct {
	mode, name string
	hash       plumbing.Hash
}

func newRepo(t *testing.T, dir string) *repo {
	t.Helper()
	r, err := gogit.PlainInit(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return &repo{t: t, dir: dir, store: r.Storer.(*filesystem.Storage)}
}

func (r *repo) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) object(kind plumbing.ObjectType, content []byte) plumbing.Hash {
	r.t.Helper()
	obj := r.store.NewEncodedObject()
	obj.SetType(kind)
	writer, err := obj.Writer()
	r.must(err)
	_, err = writer.Write(content)
	r.must(err)
	r.must(writer.Close())
	hash, err := r.store.SetEncodedObject(obj)
	r.must(err)
	return hash
}

func (r *repo) blob(content []byte) plumbing.Hash { return r.object(plumbing.BlobObject, content) }

// list writes a tree of exactly these entries.
func (r *repo) list(entries ...entry) plumbing.Hash {
	var raw []byte
	for _, e := range entries {
		raw = append(raw, e.mode+" "+e.name+"\x00"...)
		raw = append(raw, e.hash[:]...)
	}
	return r.object(plumbing.TreeObject, raw)
}

// tree writes the files, and the extra entries at the top.
func (r *repo) tree(files map[string][]byte, extra ...entry) plumbing.Hash {
	entries := slices.Clone(extra)
	below := map[string]map[string][]byte{}
	for path, content := range files {
		dir, rest, deeper := strings.Cut(path, "/")
		if !deeper {
			entries = append(entries, entry{"100644", path, r.blob(content)})
			continue
		}
		if below[dir] == nil {
			below[dir] = map[string][]byte{}
		}
		below[dir][rest] = content
	}
	for dir, content := range below {
		entries = append(entries, entry{"40000", dir, r.tree(content)})
	}
	key := func(e entry) string {
		if e.mode == "40000" {
			return e.name + "/" // as Git sorts
		}
		return e.name
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(key(a), key(b)) })
	return r.list(entries...)
}

func (r *repo) commit(tree, parent plumbing.Hash) plumbing.Hash {
	text := "tree " + tree.String() + "\n"
	if !parent.IsZero() {
		text += "parent " + parent.String() + "\n"
	}
	return r.object(plumbing.CommitObject, []byte(text+"author m <m@localhost> 1 +0000\ncommitter m <m@localhost> 1 +0000\n\nrelease\n"))
}

// point moves the channel's branch, whatever was there.
func (r *repo) point(to plumbing.Hash) {
	r.t.Helper()
	r.must(r.write(string(branch), to.String()+"\n"))
}

// write replaces a file of the repository.
func (r *repo) write(name, content string) error {
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// loose is where an object lies.
func (r *repo) loose(hash plumbing.Hash) string {
	h := hex.EncodeToString(hash[:])
	return filepath.Join("objects", h[:2], h[2:])
}

// manyRefs makes an advertisement larger than any real repository's.
func (r *repo) manyRefs(to plumbing.Hash) error {
	var b strings.Builder
	b.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	name := strings.Repeat("x", 190)
	for i := range 70_000 {
		fmt.Fprintf(&b, "%s refs/heads/%s%06d\n", to, name, i)
	}
	return r.write("packed-refs", b.String())
}
