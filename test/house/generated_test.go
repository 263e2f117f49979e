// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// generatedBy matches the files that `go generate` writes.
func generatedBy(path string) bool {
	return strings.Contains(filepath.Base(path), "_bpfel.") || strings.HasPrefix(path, "docs/schema/")
}

func readGenerated(t *testing.T, root string) map[string][]byte {
	t.Helper()
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string][]byte{}
	for _, path := range paths {
		if !generatedBy(path) {
			continue
		}
		contents[path], err = os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
	}
	return contents
}

// TestGeneratedFilesAreUpToDate generates in a copy: other tests may be compiling the originals.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	committed := readGenerated(t, root)
	if len(committed) == 0 {
		t.Fatal("no generated files found")
	}
	fresh := copyWithoutGenerated(t, root)
	generate := exec.Command("go", "generate", "./...")
	generate.Dir = fresh
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("go generate: %v\n%s", err, out)
	}
	made := readGenerated(t, fresh)
	for path := range made {
		if !bytes.Equal(committed[path], made[path]) {
			t.Errorf("%s differs from what its generator makes: run make generate and commit", path)
		}
	}
	for path := range committed {
		if _, still := made[path]; !still {
			t.Errorf("%s is not made by any generator", path)
		}
	}
}

// copyWithoutGenerated copies the repository into a temporary folder, generated Go files included (the
// generators' own packages need them to build) but not what is only data.
func copyWithoutGenerated(t *testing.T, root string) string {
	t.Helper()
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	for _, path := range paths {
		if generatedBy(path) && filepath.Ext(path) != ".go" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(target, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return target
}
