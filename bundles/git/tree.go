// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/bundles"
)

// files answers the regular files of a commit. Anything else (symlinks, submodules, odd modes, doubled or
// strange names) refuses the whole tree: a release has no use for it.
func (o *objects) files(c *object.Commit) (map[string][]byte, error) {
	w := o.walk(nil, nil)
	if err := w.tree(c.TreeHash, "", 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

func (o *objects) walk(from *base, kept *bundles.Kept) *treeWalk {
	if from == nil {
		from = newBase()
	}
	return &treeWalk{
		store: o.store, from: from, kept: kept, next: newBase(),
		out: map[string][]byte{}, known: map[string]bundles.Sum{}, blobs: map[plumbing.Hash][]byte{},
	}
}

// base is the tree of a commit without its files: enough to read a pack that leaves out what did not change since. The
// names that Git has for files are not relied upon: that a file is the signed one is for its SHA-256 to say.
type base struct {
	commit    plumbing.Hash
	trees     map[plumbing.Hash][]object.TreeEntry
	blobs     map[plumbing.Hash]blobFacts
	documents map[plumbing.Hash][]byte // what lies below .muster, which the host keeps elsewhere
}

type blobFacts struct {
	sum  bundles.Sum
	size int64
}

func newBase() *base {
	return &base{trees: map[plumbing.Hash][]object.TreeEntry{}, blobs: map[plumbing.Hash]blobFacts{}, documents: map[plumbing.Hash][]byte{}}
}

// treeWalk is one reading of a tree. A tree may name one object any number of times, so a pack of a few kilobytes
// can spell a tree without end: directories are counted as they are entered, and a blob is held once.
type treeWalk struct {
	store *memory.Storage
	// consume takes each file out of the store when it is read: it is then in memory once.
	consume bool
	from    *base
	kept    *bundles.Kept

	next  *base
	out   map[string][]byte
	known map[string]bundles.Sum // files that the host keeps
	blobs map[plumbing.Hash][]byte
	trees int
	// documents is how many bytes next has of them.
	documents int
}

func (w *treeWalk) tree(h plumbing.Hash, prefix string, depth int) error {
	if depth > maxTreeDepth {
		return bundles.NewRefusal(bundles.ErrLimits, nil, "%s is deeper than %d", prefix, maxTreeDepth)
	}
	if w.trees++; w.trees > maxTrees {
		return bundles.NewRefusal(bundles.ErrLimits, nil, "more than %d directories", maxTrees)
	}
	entries, err := w.entries(h)
	if err != nil {
		return bundles.NewRefusal(bundles.ErrMalformed, err, "tree %s", h)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if err := checkEntry(prefix, e, names); err != nil {
			return err
		}
		if e.Mode == filemode.Dir {
			if err := w.tree(e.Hash, prefix+e.Name+"/", depth+1); err != nil {
				return err
			}
			continue
		}
		if err := w.file(prefix+e.Name, e.Hash); err != nil {
			return bundles.NewRefusal(bundles.ErrMalformed, err, "%s", prefix+e.Name)
		}
		if len(w.out)+len(w.known) > maxTreeFiles {
			return bundles.NewRefusal(bundles.ErrLimits, nil, "more than %d files", maxTreeFiles)
		}
	}
	return nil
}

// entries are those of a tree in the pack, or of one that was there before.
func (w *treeWalk) entries(h plumbing.Hash) ([]object.TreeEntry, error) {
	entries, there := w.from.trees[h]
	if !there {
		tree, err := object.GetTree(w.store, h)
		if err != nil {
			return nil, err
		}
		entries = tree.Entries
	}
	w.next.trees[h] = entries
	return entries, nil
}

func checkEntry(prefix string, e object.TreeEntry, names map[string]bool) error {
	if len(prefix)+len(e.Name) > maxTreePath {
		return bundles.NewRefusal(bundles.ErrLimits, nil, "a path in the tree is longer than %d bytes", maxTreePath)
	}
	refuse := func(why string) error {
		return bundles.NewRefusal(bundles.ErrPath, nil, "%q in the tree %s", prefix+e.Name, why)
	}
	switch e.Mode {
	case filemode.Regular, filemode.Executable, filemode.Deprecated, filemode.Dir:
	case filemode.Symlink:
		return refuse("is a symlink")
	case filemode.Submodule:
		return refuse("is a submodule")
	default:
		return refuse(fmt.Sprintf("has mode %s", e.Mode))
	}
	switch {
	case e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\\\x00"):
		return refuse("is not a name")
	case strings.EqualFold(e.Name, ".git"):
		return refuse("is Git's own")
	case names[e.Name]:
		return refuse("is doubled")
	}
	names[e.Name] = true
	return nil
}

// maxKeptDocuments bounds the documents that are held for the next fetch; without them it brings everything.
const maxKeptDocuments = 2 << 20

// file takes up one file: its bytes, or its digest when the host keeps it.
func (w *treeWalk) file(path string, h plumbing.Hash) error {
	document := strings.HasPrefix(path, bundles.MetaDir+"/")
	facts, before := w.from.blobs[h]
	if !before {
		facts, before = w.next.blobs[h]
	}
	if !document && before && w.kept.Has(facts.sum, facts.size) {
		w.known[path], w.next.blobs[h] = facts.sum, facts
		return nil
	}
	data, err := w.blob(h)
	if err != nil {
		return err
	}
	if document {
		if w.documents += len(data); w.documents <= maxKeptDocuments {
			w.next.documents[h] = data
		}
		w.out[path] = data
		return nil
	}
	if w.consume {
		delete(w.store.Blobs, h)
		delete(w.store.Objects, h)
	}
	facts = blobFacts{sha256.Sum256(data), int64(len(data))}
	w.next.blobs[h] = facts
	if w.kept.Has(facts.sum, facts.size) {
		w.known[path] = facts.sum
		return nil
	}
	w.out[path], w.blobs[h] = data, data
	return nil
}

// blob reads one that is in the pack or was read before.
func (w *treeWalk) blob(h plumbing.Hash) ([]byte, error) {
	if data, read := w.blobs[h]; read {
		return data, nil
	}
	if data, before := w.from.documents[h]; before {
		return data, nil
	}
	if facts, read := w.next.blobs[h]; read {
		return w.kept.Read(facts.sum) // a document that is a policy file, too
	}
	b, err := object.GetBlob(w.store, h)
	if err != nil {
		return nil, err
	}
	if b.Size > maxBlob {
		return nil, fmt.Errorf("it has %d bytes", b.Size)
	}
	r, err := b.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, b.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return data, nil
}
