// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/fleet"
)

// The files of a host's commit.
const (
	reportFile    = "report.json"
	signatureFile = "report.json.sig"
)

// errForm says that a commit does not have the form of a report.
var errForm = errors.New("commit holds no report")

// builder makes Git objects in memory and remembers which are new.
type builder struct {
	store *memory.Storage
	made  []plumbing.Hash
	seen  map[plumbing.Hash]bool
}

func newBuilder() *builder {
	return &builder{store: memory.NewStorage(), seen: map[plumbing.Hash]bool{}}
}

type encoder interface {
	Encode(o plumbing.EncodedObject) error
}

func (b *builder) blob(content []byte) (plumbing.Hash, error) {
	o := b.store.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(content); err != nil {
		return plumbing.ZeroHash, err
	}
	return b.keep(o, w.Close())
}

func (b *builder) tree(entries []object.TreeEntry) (plumbing.Hash, error) {
	slices.SortFunc(entries, compareEntries)
	return b.encode(&object.Tree{Entries: entries})
}

// compareEntries is Git's order: a directory sorts as if its name ended in a slash.
func compareEntries(a, b object.TreeEntry) int {
	key := func(e object.TreeEntry) string {
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	switch ka, kb := key(a), key(b); {
	case ka < kb:
		return -1
	case ka > kb:
		return 1
	}
	return 0
}

// commit is signed by nobody: the content is.
func (b *builder) commit(tree plumbing.Hash, who, message string, when time.Time, parents ...plumbing.Hash) (plumbing.Hash, error) {
	by := object.Signature{Name: "muster " + who, Email: who + "@muster.invalid", When: when.UTC().Truncate(time.Second)}
	return b.encode(&object.Commit{TreeHash: tree, Author: by, Committer: by, Message: message, ParentHashes: parents})
}

func (b *builder) encode(e encoder) (plumbing.Hash, error) {
	o := b.store.NewEncodedObject()
	return b.keep(o, e.Encode(o))
}

func (b *builder) keep(o plumbing.EncodedObject, err error) (plumbing.Hash, error) {
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("building a Git object: %w", err)
	}
	h, err := b.store.SetEncodedObject(o)
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("building a Git object: %w", err)
	}
	if !b.seen[h] {
		b.seen[h] = true
		b.made = append(b.made, h)
	}
	return h, nil
}

func file(name string, hash plumbing.Hash) object.TreeEntry {
	return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: hash}
}

func dir(name string, hash plumbing.Hash) object.TreeEntry {
	return object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash}
}

// found is a report as it lies in Git, with the blobs that hold it.
type found struct {
	fleet.SignedReport
	report, signature plumbing.Hash
}

// readHostCommit reads what a host pushed: exactly the two files, whatever history the commit claims.
func readHostCommit(store *memory.Storage, commit plumbing.Hash, id string) (found, error) {
	c, err := object.GetCommit(store, commit)
	if err != nil {
		return found{}, fmt.Errorf("%w: %w", errForm, err)
	}
	t, err := object.GetTree(store, c.TreeHash)
	if err != nil {
		return found{}, fmt.Errorf("%w: %w", errForm, err)
	}
	f := found{SignedReport: fleet.SignedReport{Ref: id}}
	for _, e := range t.Entries {
		switch {
		case e.Mode == filemode.Regular && e.Name == reportFile:
			f.report = e.Hash
		case e.Mode == filemode.Regular && e.Name == signatureFile:
			f.signature = e.Hash
		default:
			return found{}, errForm
		}
	}
	return f.load(store)
}

// load reads the two blobs.
func (f found) load(store *memory.Storage) (found, error) {
	var err error
	if f.Report, err = readBlob(store, f.report); err != nil {
		return found{}, err
	}
	if f.Signature, err = readBlob(store, f.signature); err != nil {
		return found{}, err
	}
	return f, nil
}

func readBlob(store *memory.Storage, h plumbing.Hash) ([]byte, error) {
	o, err := store.EncodedObject(plumbing.BlobObject, h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}
