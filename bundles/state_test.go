// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

func seenAt(sequence int64) bundles.Seen {
	m := bundles.Mark{Epoch: 1, Sequence: sequence, Digest: "sha256:ab"}
	return bundles.Seen{Enforce: m, Audit: m, Floor: bundlestest.Now(), Clock: bundlestest.Now()}
}

// TestStateTruncated cuts the state file at every byte, and flips every byte: it is never a panic, always the
// named error, and the generation before is what remains.
func TestStateTruncated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := bundles.NewStateFile(dir)
	if _, err := s.Load(); !errors.Is(err, bundles.ErrMissingState) {
		t.Fatalf("before anything was saved: %v", err)
	}
	for _, seq := range []int64{7, 8} {
		if err := s.Save(seenAt(seq)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "seen")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := [][]byte{}
	for n := range whole {
		flipped := append([]byte(nil), whole...)
		flipped[n] ^= 0x20
		damaged = append(damaged, whole[:n], flipped)
	}
	for i, data := range damaged {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load()
		if !errors.Is(err, bundles.ErrTorn) || bundles.RefusalName(err) != "torn" {
			t.Fatalf("damage %d: %v", i, err)
		}
		if d := cmp.Diff(seenAt(7), got); d != "" {
			t.Fatalf("damage %d: not the older generation: %s", i, d)
		}
	}
	// Saving over a torn file must not push the torn bytes over the older generation.
	if err := os.WriteFile(path, whole[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(seenAt(9)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(); err != nil || got.Enforce.Sequence != 9 {
		t.Fatalf("after saving again: %v %v", got, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Load(); got.Enforce.Sequence != 7 {
		t.Fatalf("the older generation is %v", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, bundles.ErrTorn) {
		t.Fatalf("a missing file beside an older generation: %v", err)
	}
}

func TestStateSaveWritesOnlyChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := bundles.NewStateFile(dir)
	if err := s.Save(seenAt(7)); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1, 0)
	if err := os.Chtimes(filepath.Join(dir, "seen"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(seenAt(7)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "seen"))
	if err != nil || !info.ModTime().Equal(old) {
		t.Fatalf("the same state was written again: %v %v", info.ModTime(), err)
	}
}

// TestCacheTruncated cuts the newest cached release at every byte: the one before it is used and the damage named.
func TestCacheTruncated(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	dir := t.TempDir()
	c := bundles.NewCache(dir)
	older, newer := f.Verified(t, trust, 5, "alice"), f.Verified(t, trust, 6, "alice")
	for _, v := range []*bundles.Verified{older, newer} {
		if err := c.Store(v); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "enforce-*0006-*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	load := func() *bundles.Verified {
		t.Helper()
		v, problems, err := c.Load(bundles.LevelEnforce, trust, bundles.Seen{}, bundlestest.Now())
		if err != nil || v == nil {
			t.Fatal(problems, err)
		}
		if v.Digest() == older.Digest() && (len(problems) != 1 || !errors.Is(problems[0], bundles.ErrTorn)) {
			t.Fatalf("the damage is not named: %v", problems)
		}
		return v
	}
	for n := range whole {
		if err := os.WriteFile(names[0], whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if v := load(); v.Digest() != older.Digest() {
			t.Fatalf("cut at %d: %s", n, v.Digest())
		}
	}
	if err := os.WriteFile(names[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := load(); v.Digest() != newer.Digest() {
		t.Fatal("the whole file is not used")
	}
}

// TestCacheReverifies: what the cache holds is believed only as far as today's trust goes.
func TestCacheReverifies(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob")
	trust := f.Trust(t, 1, 1, "")
	c := bundles.NewCache(t.TempDir())
	for seq := int64(1); seq <= 6; seq++ {
		if err := c.Store(f.Verified(t, trust, seq, "alice")); err != nil {
			t.Fatal(err)
		}
	}
	load := func(trust *bundles.Trust) (*bundles.Verified, []*bundles.CacheProblem) {
		t.Helper()
		v, problems, err := c.Load(bundles.LevelEnforce, trust, bundles.Seen{}, bundlestest.Now())
		if err != nil {
			t.Fatal(err)
		}
		return v, problems
	}
	six := f.Verified(t, trust, 6, "alice")
	revoked := f.Trust(t, 1, 1, "revoked: {releases: ["+six.Digest()[len("sha256:"):]+"]}\n")
	if v, problems := load(revoked); v.Release().Sequence != 5 || len(problems) != 1 || !errors.Is(problems[0], bundles.ErrRevoked) {
		t.Fatalf("the newest unrevoked one is not used: %v", problems)
	}
	if v, problems := load(f.Trust(t, 1, 1, "revoked: {keys: ["+f.Keys["alice"].ID()+"]}\n")); v != nil || len(problems) != 3 {
		t.Fatalf("a revoked key's releases: %v %v", v, problems)
	}
	if v, problems := load(f.Trust(t, 1, 2, "")); v != nil || len(problems) != 3 {
		t.Fatalf("too few signers for enforce now: %v %v", v, problems)
	}
}

// TestRecoverSeen: the floor of a host whose state is lost is the highest of all that it can still know.
func TestRecoverSeen(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	five := f.Verified(t, trust, 5, "alice")
	seen := bundles.RecoverSeen([]*bundles.Verified{five}, bundles.Seen{Enforce: bundles.Mark{Epoch: 1, Sequence: 9}}, bundles.Seen{Audit: bundles.Mark{Epoch: 1, Sequence: 3}})
	if seen.Enforce.Sequence != 9 || seen.Audit.Sequence != 5 || !seen.Floor.Equal(bundlestest.Issued()) {
		t.Fatalf("%+v", seen)
	}
	_, err := bundles.Verify(bundlestest.Raw(f.Release(t, 8, "alice")), trust, seen, bundlestest.Now())
	if !errors.Is(err, bundles.ErrRollback) {
		t.Fatalf("below the floor: %v", err)
	}
	// The floor's digest may be unknown; the release of that very number is then accepted.
	if _, err := bundles.Verify(bundlestest.Raw(f.Release(t, 9, "alice")), trust, seen, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
}
