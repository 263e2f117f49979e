// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// partly is a release of which only what is not kept was brought.
func partly(t *testing.T, all map[string][]byte, kept *bundles.Kept) *bundles.Raw {
	t.Helper()
	files, known := maps.Clone(all), map[string]bundles.Sum{}
	for name, data := range all {
		if sum := sha256.Sum256(data); kept.Has(sum, int64(len(data))) {
			delete(files, name)
			known[name] = sum
		}
	}
	if len(known) == 0 {
		t.Fatal("nothing is kept")
	}
	return &bundles.Raw{Revision: "r2", FS: bundles.NewPartFS(files, known, kept)}
}

// TestKept: a release of which the cache keeps a part is the same release, and is stored as the whole one is.
func TestKept(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	dir := t.TempDir()
	cache := bundles.NewCache(dir)
	files := map[string][]byte{"a.yaml": bundlestest.Policy("a"), "d-1.yaml": bundlestest.Policy("d1"), "d/e/f.yaml": bundlestest.Policy("f"), "d.yaml": bundlestest.Policy("d")}
	verify := func(raw *bundles.Raw) (*bundles.Verified, error) {
		return bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now())
	}
	first, err := verify(bundlestest.Raw(f.Sign(t, files, f.Doc(t, files, 1), "alice")))
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Store(first); err != nil {
		t.Fatal(err)
	}
	first.Unload()
	if err := fstest.TestFS(first.FS(), "a.yaml", "d-1.yaml", "d/e/f.yaml", "d.yaml"); err != nil {
		t.Error(err)
	}
	next := maps.Clone(files)
	next["a.yaml"] = bundlestest.Policy("changed")
	signed := f.Sign(t, next, f.Doc(t, next, 2), "alice")
	second, err := verify(partly(t, signed, first.Kept()))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second writes nothing
		if err := cache.Store(second); err != nil {
			t.Fatal(err)
		}
	}
	whole := t.TempDir()
	reference, err := verify(&bundles.Raw{Revision: "r2", FS: bundles.NewMemFS(signed)})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundles.NewCache(whole).Store(reference); err != nil {
		t.Fatal(err)
	}
	if got, want := newestIn(t, dir), newestIn(t, whole); got != want {
		t.Error("a release that is stored out of a part differs from the whole one")
	}
	loaded, problems, err := cache.Load(bundles.LevelEnforce, trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || len(problems) > 0 || loaded.Mark() != reference.Mark() {
		t.Fatalf("%v %v", problems, err)
	}
	loaded.Unload()
	for name, data := range next {
		if got, err := fs.ReadFile(loaded.FS(), name); err != nil || string(got) != string(data) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeptIsNotBelieved: what the cache is said to keep counts by its digest only.
func TestKeptIsNotBelieved(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	dir := t.TempDir()
	files := bundlestest.Files()
	v, err := bundles.Verify(bundlestest.Raw(f.Sign(t, files, f.Doc(t, files, 1), "alice")), trust, bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := bundles.NewCache(dir).Store(v); err != nil {
		t.Fatal(err)
	}
	v.Unload()
	signed := f.Sign(t, files, f.Doc(t, files, 2), "alice")
	part := func(name string, sum bundles.Sum) *bundles.Raw {
		rest := maps.Clone(signed)
		delete(rest, name)
		return &bundles.Raw{FS: bundles.NewPartFS(rest, map[string]bundles.Sum{name: sum}, v.Kept())}
	}
	verify := func(raw *bundles.Raw) error {
		_, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now())
		return err
	}
	if err := verify(part("a.yaml", sha256.Sum256(files["a.yaml"]))); err != nil {
		t.Errorf("control: %v", err)
	}
	if err := verify(part("a.yaml", sha256.Sum256(files["sub/b.yaml"]))); !errors.Is(err, bundles.ErrAltered) {
		t.Errorf("another kept file in the place of the signed one: %v", err)
	}
	if err := verify(part("a.yaml", sha256.Sum256([]byte("x")))); !errors.Is(err, bundles.ErrAltered) {
		t.Errorf("a file that nobody keeps: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, nameIn(t, dir))); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(v.FS(), "a.yaml"); !errors.Is(err, bundles.ErrTorn) {
		t.Errorf("read out of a cache that is gone: %v", err)
	}
}

func nameIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	return entries[len(entries)-1].Name()
}

func newestIn(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, nameIn(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
