// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"log/slog"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/muster-fleet/muster/bpf"
)

func bareBackend() *Backend {
	b := &Backend{log: slog.New(slog.DiscardHandler), maps: map[string]*ebpf.Map{}}
	b.reader.init()
	return b
}

// TestMarkImpossible meets a protected path that no file can ever have: every other rule must be published.
func TestMarkImpossible(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("n", 300)
	if err := bareBackend().identify(t.Context(), []string{long}, nil); err != nil {
		t.Error(err)
	}
}

// TestMarksFull meets a full map of marks: the ruleset is published, and the loss is told.
func TestMarksFull(t *testing.T) {
	t.Parallel()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	marks, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Hash, MaxEntries: 1, Flags: 1, // without preallocation, as the real one
		KeySize: uint32(unsafe.Sizeof(bpf.MusterMarkKey{})), ValueSize: uint32(unsafe.Sizeof(bpf.MusterMark{})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer marks.Close()
	b := bareBackend()
	b.maps[bpf.MusterMapMarks] = marks
	for n := range uint64(8) { // the kernel may let a few more in than there is room for
		if _, err := b.mark(bpf.MusterMarkKey{Inode: n}, 7); err != nil {
			t.Error(err)
		}
	}
	if losses, err := b.Losses(); err != nil || losses[lossMarkFull] == 0 {
		t.Errorf("losses %v %v", losses, err)
	}
}

// TestKnownImages keeps the ruleset that was told last, however long ago it was told first.
func TestKnownImages(t *testing.T) {
	t.Parallel()
	var r eventReader
	r.init()
	for id := range uint64(keptImages) {
		r.know(&Image{ID: id})
	}
	r.know(&Image{ID: 0})
	r.know(&Image{ID: keptImages})
	if r.image(0) == nil || r.image(1) != nil || len(r.images) != keptImages {
		t.Errorf("known %v", r.order)
	}
}
