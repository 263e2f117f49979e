// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var named = regexp.MustCompile("`([^`]+)`")

// TestPackagesPage holds the table of packages in docs/concepts.md against the packages that there are. Commands and helpers
// below a folder of test, and private helpers, are that folder's own business.
func TestPackagesPage(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/concepts.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| package | what it is |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var listed []string
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, found := range named.FindAllStringSubmatch(first, -1) {
			listed = append(listed, found[1])
		}
	}
	var there []string
	for _, pkg := range goList(t, "./...") {
		pkg = strings.TrimPrefix(pkg, Module+"/")
		if strings.Count(pkg, "/") > 1 && strings.HasPrefix(pkg, "test/") || strings.Contains(pkg, "/internal/") && !strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		there = append(there, pkg)
		if !slices.Contains(listed, pkg) {
			t.Errorf("docs/concepts.md: the table of packages lacks %s", pkg)
		}
	}
	for _, pkg := range listed {
		if !slices.Contains(there, pkg) {
			t.Errorf("docs/concepts.md: the table of packages has %s, which is no package", pkg)
		}
	}
}
