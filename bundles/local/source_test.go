// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package local_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/local"
)

func put(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, url string) *local.Source {
	t.Helper()
	s, err := local.New(url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get verifies what the source has, and answers the refusal's name.
func get(t *testing.T, s *local.Source, trust *bundles.Trust) (bundles.Revision, string) {
	t.Helper()
	rev, err := s.Latest(t.Context())
	var raw *bundles.Raw
	if err == nil {
		raw, err = s.Fetch(t.Context(), rev)
	}
	if err == nil {
		_, err = bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now())
	}
	if name := bundles.RefusalName(err); name != "" || err == nil {
		return rev, name
	}
	t.Fatal(err)
	return "", ""
}

func TestADirectoryAndAFile(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	dir := filepath.Join(t.TempDir(), "release")
	file := filepath.Join(t.TempDir(), "policy.muster")
	sources := map[string]*local.Source{"dir": open(t, "dir://"+dir), "file": open(t, "bundle://"+file)}
	for what, s := range sources {
		if _, name := get(t, s, trust); name != "no-release" {
			t.Errorf("%s: nothing is there: %q", what, name)
		}
	}
	last := map[string]bundles.Revision{}
	for sequence := int64(1); sequence <= 2; sequence++ {
		files := f.Release(t, sequence, "alice")
		put(t, dir, files)
		var packed bytes.Buffer
		if err := bundles.WriteArchive(&packed, files); err != nil {
			t.Fatal(err)
		}
		if err := bundles.WriteAtomic(file, packed.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		for what, s := range sources {
			rev, name := get(t, s, trust)
			if name != "" || rev == last[what] {
				t.Errorf("%s: release %d: %q, revision %s", what, sequence, name, rev)
			}
			if again, _ := get(t, s, trust); again != rev {
				t.Errorf("%s: unchanged, and yet %s, then %s", what, rev, again)
			}
			last[what] = rev
		}
	}
}

func TestWhatADirectoryMayNotHold(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	for what, c := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"the control":           {func(string) error { return nil }, ""},
		"a link to a file":      {func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "x.yaml")) }, "path"},
		"a link to a directory": {func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "x")) }, "path"},
		"a link in a file's place": {func(dir string) error {
			path := filepath.Join(dir, "a.yaml")
			if err := os.Rename(path, filepath.Join(dir, "b.yaml")); err != nil {
				return err
			}
			return os.Symlink("b.yaml", path)
		}, "path"},
		"a huge file": {func(dir string) error {
			path := filepath.Join(dir, "huge.yaml")
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}, "limits"},
		"a changed file": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("x"), 0o644) }, "altered"},
	} {
		dir := t.TempDir()
		put(t, dir, f.Release(t, 1, "alice"))
		if err := c.do(dir); err != nil {
			t.Fatal(err)
		}
		if _, name := get(t, open(t, "dir://"+dir), trust); name != c.want {
			t.Errorf("%s: %q, want %q", what, name, c.want)
		}
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"dir://x", "bundle://", "dir:"} {
		if _, err := local.New(raw); err == nil {
			t.Errorf("%s is accepted", raw)
		}
	}
}
