// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/muster-fleet/muster/fleet"
)

// A tree may name one blob any number of times; who can write the branch must not fill the memory of whoever folds.
func TestStatusOfManyNames(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, h.col, "")
	for name, size := range map[string]int{"reports too large": 20 << 20, "one report of many hosts": 1 << 10} {
		b := newBuilder()
		blob, err := b.blob(bytes.Repeat([]byte("x"), size))
		if err != nil {
			t.Fatal(err)
		}
		var entries []object.TreeEntry
		for i := 0; len(entries) < 2000; i++ {
			if id := fmt.Sprintf("h%d", i); fleet.Shard(id) == "00" {
				entries = append(entries, file(id+".json", blob), file(id+".json.sig", blob))
			}
		}
		shard, err := b.tree(entries)
		if err != nil {
			t.Fatal(err)
		}
		hosts, err := b.tree([]object.TreeEntry{dir("00", shard), dir("01", shard)})
		if err != nil {
			t.Fatal(err)
		}
		st := &status{store: b.store, taken: map[plumbing.Hash]bool{}}
		if err := st.readHosts(hosts); err != nil || len(st.kept) > 1 {
			t.Errorf("%s: %d kept, %v", name, len(st.kept), err)
		}
	}
}

// A roll from the future, by somebody who may fold, does not stop the others from folding.
func TestRollFromTheFuture(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	ahead := newClock()
	ahead.advance(1000 * time.Hour)
	a, b := newHost(t, s, c, "web-1", all), newHost(t, s, ahead, "web-2", all)
	if err := a.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, b.col, "")
	collect(t, a.col, "")
	if roll, _ := readRoll(t, s, fleet.Collectors{Hosts: all}, c); !roll.Time.Equal(c.Now()) {
		t.Errorf("the roll is of %s", roll.Time)
	}
}
