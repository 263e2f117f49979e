// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is ARCHITECTURE's table: for each folder, the folders of this module that its packages may
// import (not counting tests), as far as some package makes use of it: what nothing imports is not permitted either.
var mayImport = map[string][]string{
	"policies":            {},
	"inventory":           {},
	"inventory/host":      {"inventory"},
	"bpf":                 {},
	"bundles":             {"policies"},
	"bundles/git":         {"bundles"},
	"bundles/local":       {"bundles"},
	"bundles/oci":         {"bundles"},
	"enforce":             {"policies", "inventory", "enforce/automaton"},
	"enforce/automaton":   {"policies"},
	"enforce/enforcetest": {"enforce", "enforce/automaton", "policies"},
	"enforce/bpflsm":      {"enforce", "enforce/automaton", "policies", "bpf"},
	"fleet":               {"bundles", "enforce"},
	"fleet/statusref":     {"fleet", "bundles"},
	"reconciler":          {"policies", "inventory", "bundles", "enforce", "fleet", "reconciler/control"},
	"reconciler/control":  {"policies", "inventory", "enforce", "fleet"},
}

// libraries are the modules of others that the pure folders may import: those of their field, and nothing that reaches
// out of the process. For the other folders docs/dependencies.md has the reasons.
var libraries = map[string][]string{
	"policies":          {"go.yaml.in/yaml/v3"},
	"inventory":         {"github.com/hashicorp/go-memdb"},
	"inventory/host":    {"go.yaml.in/yaml/v3"},
	"bpf":               {"github.com/cilium/ebpf"},
	"enforce":           {},
	"enforce/automaton": {},
}

// folderOf returns the longest key of mayImport that holds the package, private helpers
// (<folder>/internal/…) and subfolders included; "" when there is none.
func folderOf(pkg string) string {
	for folder := pkg; folder != "."; {
		if _, known := mayImport[folder]; known {
			return folder
		}
		cut := strings.LastIndexByte(folder, '/')
		if cut < 0 {
			return ""
		}
		folder = folder[:cut]
	}
	return ""
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(strings.TrimPrefix(fields[0], Module), "/")
		if strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "test/") {
			continue
		}
		folder := folderOf(pkg)
		if folder == "" {
			t.Errorf("%s: no row in mayImport: say here what it may import", pkg)
			continue
		}
		for _, imported := range fields[1:] {
			target, ours := strings.CutPrefix(imported, Module+"/")
			if !ours {
				continue
			}
			targetFolder := folderOf(target)
			if targetFolder != folder && !slices.Contains(mayImport[folder], targetFolder) {
				t.Errorf("%s imports %s, which %s may not", pkg, target, folder)
			}
			used[folder+" "+targetFolder] = true
		}
	}
	for folder, targets := range mayImport {
		for _, target := range targets {
			if !used[folder+" "+target] {
				t.Errorf("%s may import %s, and nothing there does: remove it from mayImport", folder, target)
			}
		}
	}
}

func TestLibrariesOfThePureFolders(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		folder := folderOf(strings.TrimPrefix(strings.TrimPrefix(fields[0], Module), "/"))
		allowed, pure := libraries[folder]
		if !pure {
			continue
		}
		for _, imported := range fields[1:] {
			if strings.HasPrefix(imported, Module+"/") || !isLibrary(imported) {
				continue
			}
			used[folder+" "+imported] = true
			if !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s: %s has the standard library, and %v", fields[0], imported, folder, allowed)
			}
		}
	}
	for folder, list := range libraries {
		for _, library := range list {
			if !used[folder+" "+library] {
				t.Errorf("%s may import %s, and nothing there does: remove it from libraries", folder, library)
			}
		}
	}
}

// isLibrary tells a module's package from one of the standard library: its first element has a dot.
func isLibrary(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".")
}

func TestOnlyCosignsLibraryIsLinked(t *testing.T) {
	t.Parallel()
	for _, pkg := range goList(t, "-deps", "./cmd/...") {
		if strings.HasPrefix(pkg, "github.com/sigstore/cosign/v2/cmd") {
			t.Errorf("%s is linked: only cosign's pkg/cosign and pkg/oci may be", pkg)
		}
	}
}

func TestTheCommandLineToolLinksNoKernelLibrary(t *testing.T) {
	t.Parallel()
	for _, pkg := range goList(t, "-deps", "./cmd/muster") {
		if strings.HasPrefix(pkg, "github.com/cilium/ebpf") {
			t.Errorf("cmd/muster links %s", pkg)
		}
	}
}
