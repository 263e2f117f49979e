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
// import (not counting tests). A driver may import what the package it serves may import.
var mayImport = map[string][]string{
	"policies":            {},
	"inventory":           {},
	"inventory/host":      {"inventory"},
	"bpf":                 {},
	"bundles":             {"policies"},
	"bundles/git":         {"bundles", "policies"},
	"bundles/local":       {"bundles", "policies"},
	"bundles/oci":         {"bundles", "policies"},
	"enforce":             {"policies", "inventory", "enforce/automaton"},
	"enforce/automaton":   {"policies"},
	"enforce/enforcetest": {"enforce", "enforce/automaton", "policies"},
	"enforce/bpflsm":      {"enforce", "enforce/automaton", "policies", "bpf"},
	"fleet":               {"bundles", "enforce", "inventory", "policies"},
	"fleet/statusref":     {"fleet", "bundles", "enforce", "inventory", "policies"},
	"reconciler":          {"policies", "inventory", "bundles", "enforce", "fleet", "reconciler/control"},
	"reconciler/control":  {"policies", "inventory", "bundles", "enforce", "fleet"},
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
		}
	}
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
