// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Whoever can write into the kernel's maps can give the agent anything: it must be refused or make a whole event.

// whole fails when an event is not one that the rest of the agent can take.
func whole(t *testing.T, image *Image, e *enforce.Event) {
	t.Helper()
	if e.Class == "" || e.Time.IsZero() || len(e.Resource)+len(e.Source) > 2*int(bpf.MusterLimitEVENT_DATA) || len(e.Args) > math.MaxUint16 {
		t.Fatalf("%+v", e)
	}
	named := append(e.Audits, e.Rule)
	for _, run := range e.DryRuns {
		named = append(named, run.Rule)
	}
	for _, r := range named {
		if r == nil {
			continue
		}
		if !slices.ContainsFunc(image.ruleset.Rules, func(known enforce.Rule) bool { return reflect.DeepEqual(known, *r) }) {
			t.Fatalf("a rule of no ruleset: %+v", r)
		}
	}
}

// dryImage has a rule, an allow-list and a list of who closes the class, of policies in dry run.
func dryImage(t testing.TB) *Image {
	t.Helper()
	allow := rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, "/etc/motd", "/usr/bin/cat")
	image, err := render(inDryRun(rules(enforce.ModeEnforce, enforce.PostureBlock, block("/etc/shadow"), allow), 0, 1), testKey)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// FuzzDecodeDryRun gives the decoder lists of dry runs.
func FuzzDecodeDryRun(f *testing.F) {
	image := dryImage(f)
	f.Add(uint32(bpf.MusterListBitLIST_DRY)|1, uint32(bpf.MusterListBitLIST_DECIDED), uint32(1), uint8(bpf.MusterEventFlagEVENT_DRY))
	f.Add(uint32(bpf.MusterListBitLIST_DRY)|2, uint32(bpf.MusterListBitLIST_DECIDED|bpf.MusterListBitLIST_UNBUILDABLE), uint32(0), uint8(bpf.MusterEventFlagEVENT_DRY))
	f.Add(uint32(3), uint32(2), uint32(1), uint8(0))
	f.Add(uint32(bpf.MusterListBitLIST_DECIDED)|9, uint32(1<<31), uint32(4), uint8(255))
	f.Fuzz(func(t *testing.T, a, b, c uint32, flags uint8) {
		raw := aligned(sample(image, "/etc/shadow"))
		header := view[bpf.MusterEvent](raw, 0, 0)
		header.Rule, header.Verdict, header.Flags = 0, uint8(bpf.MusterVerdictVERDICT_PERMIT), flags
		copy(header.Audits[:], []uint32{a, b, c})
		if e, err := testDecoder(image).decode(raw, false); err == nil {
			whole(t, image, &e)
		}
	})
}

// FuzzDecodeEvent gives the decoder samples of the ring.
func FuzzDecodeEvent(f *testing.F) {
	image := testImage(f)
	f.Add(sample(image, "/etc/shadow", "", "/usr/bin/cat", "/usr/bin/bash"), false)
	f.Add(sample(image, "/etc/shadow"), true)
	f.Add(sample(image)[:7], true)
	f.Add(execSample(image, "/root", "-c", "id"), false)
	f.Add(execSample(image, "", "a", "", "b")[:200], true)
	f.Fuzz(func(t *testing.T, raw []byte, cut bool) {
		d := testDecoder(image)
		e, err := d.decode(aligned(raw), cut)
		if err == nil {
			whole(t, image, &e)
		}
	})
}

// aligned is a copy at an address as the kernel's records have.
func aligned(raw []byte) []byte {
	words := make([]uint64, len(raw)/8+1)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	return bytes[:copy(bytes, raw)]
}

// FuzzDecodeMaps gives what reads the maps of the kernel side any values: folds, the first page of an image, the settings
// of another layout, the inodes that the iterator prints.
func FuzzDecodeMaps(f *testing.F) {
	image := testImage(f)
	f.Add(sample(image, "/etc/shadow"), uint32(0))
	f.Add(image.Bytes[:min(len(image.Bytes), pageBytes)], uint32(1))
	f.Fuzz(func(t *testing.T, raw []byte, kind uint32) {
		var fold bpf.MusterFold
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&fold)), unsafe.Sizeof(fold)), raw)
		testDecoder(image).deliverFold(&fold, kind, func(e enforce.Event) { whole(t, image, &e) })

		page := make([]byte, pageBytes)
		copy(page, raw)
		if d := demandOfImage(view[bpf.MusterImageHeader](page, 0, 0)); d&^everyDemand != 0 {
			t.Fatalf("demand %#x", d)
		}

		held := map[uint32]string{0: "/a", kind: "/b"}
		named := 0
		err := readInodes(raw, held, func(path string, _ bpf.MusterMarkKey) error {
			if path == "" {
				t.Fatal("an inode of no path")
			}
			named++
			return nil
		})
		if err == nil && named < len(held) {
			t.Fatalf("%d of %d were named, and that is no error", named, len(held))
		}
	})
}
