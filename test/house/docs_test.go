// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/reconciler/config"
)

// TestConfigurationPage loads the example of docs/configuration.md and compares it with the defaults.
func TestConfigurationPage(t *testing.T) {
	t.Parallel()
	root, _ := repository(t)
	page, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/configuration.md has no yaml example")
	}
	path := filepath.Join(t.TempDir(), "musterd.yaml")
	if err := os.WriteFile(path, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Source.URL = "https://git.example.com/policy.git"
	got.Protect, got.Visibility, got.Tenants, got.Source.Mirrors = nil, nil, nil, nil
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("docs/configuration.md differs from the defaults (-code +page):\n%s", diff)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	root, _ := repository(t)
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if filepath.Ext(path) != ".md" || strings.Contains(path, "testdata/") {
			continue
		}
		page, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(page), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), found[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", path, found[1])
			}
		}
	}
}
