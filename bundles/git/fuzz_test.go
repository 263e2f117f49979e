// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/bundles"
)

// FuzzPack: no bytes of a pack are more than an error with a name, and what they hold is within the limits.
func FuzzPack(f *testing.F) {
	c := &Channel{store: memory.NewStorage()}
	tree, err := c.writeTree(map[string][]byte{"a": bytes.Repeat([]byte("x"), 200), "d/b": bytes.Repeat([]byte("x"), 201)}, "")
	if err != nil {
		f.Fatal(err)
	}
	obj := c.store.NewEncodedObject()
	if err := (&object.Commit{TreeHash: tree, Message: "x"}).Encode(obj); err != nil {
		f.Fatal(err)
	}
	commit, err := c.store.SetEncodedObject(obj)
	if err != nil {
		f.Fatal(err)
	}
	hashes := []plumbing.Hash{}
	for h := range c.store.Objects {
		hashes = append(hashes, h)
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, c.store, false).Encode(hashes, 10); err != nil {
		f.Fatal(err)
	}
	f.Add(pack.Bytes())
	limits := Limits{Objects: 100, Inflate: 1 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := unpack(data, limits)
		if err != nil {
			if bundles.RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		cm, err := o.commit(commit)
		if err != nil {
			return
		}
		if _, err := o.files(cm); err != nil && bundles.RefusalName(err) == "" {
			t.Fatalf("an error without a name: %v", err)
		}
	})
}
