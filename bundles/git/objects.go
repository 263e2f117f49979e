// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/bundles"
)

const (
	maxTreeDepth = 24
	maxTreeFiles = 40_000
	maxTrees     = 40_000
	maxTreePath  = 4096
	maxBlob      = 16 << 20
)

// objects is a fetched pack, in memory.
type objects struct {
	store *memory.Storage
	tag   plumbing.Hash // the annotated tag on the commit, when there is one
}

// unpack measures the pack before it inflates it into memory: a small pack can hold a very large one.
func unpack(pack []byte, limits Limits) (o *objects, err error) {
	// The parser is not ours and the bytes are a stranger's: its panic must not end the agent.
	defer func() {
		if r := recover(); r != nil {
			o, err = nil, bundles.NewRefusal(bundles.ErrMalformed, nil, "the pack breaks its parser: %v", r)
		}
	}()
	if err := measure(pack, limits); err != nil {
		return nil, err
	}
	store := memory.NewStorage()
	if err := packfile.UpdateObjectStorage(store, bytes.NewReader(pack)); err != nil {
		return nil, bundles.NewRefusal(bundles.ErrMalformed, err, "the pack cannot be read")
	}
	return &objects{store: store}, nil
}

// measure reads the pack once without keeping anything and adds up what its objects will take, deltas by the
// size that they will resolve to.
func measure(pack []byte, limits Limits) error {
	bad := func(err error) error {
		return bundles.NewRefusal(bundles.ErrMalformed, err, "the pack cannot be read")
	}
	sc := packfile.NewScanner(bytes.NewReader(pack))
	_, count, err := sc.Header()
	if err != nil {
		return bad(err)
	}
	if count > limits.Objects {
		return bundles.NewRefusal(bundles.ErrLimits, nil, "the pack has %d objects, more than %d", count, limits.Objects)
	}
	var total int64
	for range count {
		head, err := sc.NextObjectHeader()
		if err != nil {
			return bad(err)
		}
		size, err := inflatedSize(sc, head)
		if err != nil {
			return bad(err)
		}
		if total += size; size > maxBlob || total > limits.Inflate {
			return bundles.NewRefusal(bundles.ErrLimits, nil, "the pack inflates to more than %d bytes, or one object to more than %d",
				limits.Inflate, maxBlob)
		}
	}
	return nil
}

var errTooLong = errors.New("the object is longer than its header says")

// inflatedSize inflates one object into a counter that stops at its declared size.
func inflatedSize(sc *packfile.Scanner, head *packfile.ObjectHeader) (int64, error) {
	if head.Length > maxBlob {
		return head.Length, nil
	}
	w := &prefixCounter{limit: head.Length}
	if _, _, err := sc.NextObject(w); err != nil {
		return 0, err
	}
	if head.Type != plumbing.OFSDeltaObject && head.Type != plumbing.REFDeltaObject {
		return head.Length, nil
	}
	// A delta begins with the size of its base and the size of its result.
	_, n := binary.Uvarint(w.prefix)
	if n <= 0 {
		return 0, errors.New("a delta without sizes")
	}
	result, n := binary.Uvarint(w.prefix[n:])
	if n <= 0 {
		return 0, errors.New("a delta without sizes")
	}
	if result > maxBlob {
		return maxBlob + 1, nil
	}
	return head.Length + int64(result), nil
}

type prefixCounter struct {
	limit, n int64
	prefix   []byte
}

func (c *prefixCounter) Write(p []byte) (int, error) {
	if c.n += int64(len(p)); c.n > c.limit {
		return 0, errTooLong
	}
	if room := 2*binary.MaxVarintLen64 - len(c.prefix); room > 0 {
		c.prefix = append(c.prefix, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (o *objects) commit(h plumbing.Hash) (*object.Commit, error) {
	return object.GetCommit(o.store, h)
}

// keepSigned puts a signed commit and the tag on it beside the files, byte for byte, for who asks for their
// signatures. What the tree itself has in these places is not believed to be either.
func (o *objects) keepSigned(files map[string][]byte, commit plumbing.Hash) error {
	for path, hash := range map[string]plumbing.Hash{bundles.GitCommitPath: commit, bundles.GitTagPath: o.tag} {
		delete(files, path)
		if hash.IsZero() {
			continue
		}
		obj, err := o.store.EncodedObject(plumbing.AnyObject, hash)
		if err != nil {
			return bundles.NewRefusal(bundles.ErrMalformed, err, "object %s", hash)
		}
		if obj.Size() > maxSignedObject {
			continue // whoever asks for it finds none
		}
		r, err := obj.Reader()
		if err != nil {
			return bundles.NewRefusal(bundles.ErrMalformed, err, "object %s", hash)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return bundles.NewRefusal(bundles.ErrMalformed, err, "object %s", hash)
		}
		if bytes.Contains(data, []byte("-----BEGIN ")) {
			files[path] = data
		}
	}
	return nil
}

// maxSignedObject is far above a commit or tag that somebody made by hand.
const maxSignedObject = 64 << 10
