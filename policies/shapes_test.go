// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// shapes are the files of testdata/shapes by name; a List is given as its items, which have a schema.
func shapes(tb testing.TB) map[string]string {
	tb.Helper()
	files, err := filepath.Glob("testdata/shapes/*.yaml")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no shapes: %v", err)
	}
	texts := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		text := string(data)
		if _, items, ok := strings.Cut(text, "\nitems:\n"); ok {
			text = strings.ReplaceAll("\n"+items, "\n- ", "\n---\n  ")
		}
		// JSON Schema takes YAML 1.1's yes for text; it is the one word that the schemas refuse.
		texts[filepath.Base(file)] = strings.ReplaceAll(text, ": yes\n", ": true\n")
	}
	return texts
}

// TestShapes holds the whole rule model of the shapes against golden files.
func TestShapes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/shapes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no shapes: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list, err := ParseDocument(filepath.Base(file), data)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		have, err := json.MarshalIndent(list, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		golden := strings.TrimSuffix(file, ".yaml") + ".golden.json"
		if *update {
			if err := os.WriteFile(golden, append(have, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(have)+"\n"); diff != "" {
			t.Errorf("%s:\n%s", golden, diff)
		}
	}
}
