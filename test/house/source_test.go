// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	goHeader = "// Copyright The Muster Authors\n// SPDX-License-Identifier: Apache-2.0\n"
	cHeader  = "SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)"
)

// topLevel is what the repository's root may hold.
var topLevel = []string{
	".ci", ".clang-format", ".gitignore", ".golangci.yml", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
	"bpf", "bundles", "cmd", "deploy", "docs", "enforce", "examples", "fleet", "go.mod", "go.sum", "inventory",
	"policies", "reconciler", "test",
}

func repository(t *testing.T) (string, []File) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := GoFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, files
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	root, _ := repository(t)
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		top, _, _ := strings.Cut(path, "/")
		if !slices.Contains(topLevel, top) {
			t.Errorf("%s: %q has no place at the top level", path, top)
		}
	}
}

func TestLicenceHeaders(t *testing.T) {
	t.Parallel()
	root, files := repository(t)
	for _, file := range files {
		if !file.Generated() && !bytes.HasPrefix(file.Source, []byte(goHeader)) {
			t.Errorf("%s: does not begin with the licence header", file.Path)
		}
	}
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if ext := filepath.Ext(path); !strings.HasPrefix(path, "bpf/") || ext != ".c" && ext != ".h" {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		// A build constraint that keeps the go command away may stand before it.
		head := bytes.Join(bytes.SplitN(source, []byte("\n"), 5)[:3], []byte("\n"))
		if !bytes.Contains(head, []byte(cHeader)) {
			t.Errorf("%s: the first lines do not hold %q", path, cHeader)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	_, files := repository(t)
	documented := map[string]bool{}
	for _, file := range files {
		if file.Test() {
			continue
		}
		dir := filepath.Dir(file.Path)
		documented[dir] = documented[dir] || file.AST.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package documentation", dir)
		}
	}
}

// forbidden calls, and where each is allowed all the same.
var forbidden = map[string]func(File) bool{
	"time.Sleep": func(File) bool { return false },
	"os.Exit":    func(f File) bool { return f.AST.Name.Name == "main" || f.Test() },
	"log.Fatal":  func(File) bool { return false },
}

func TestForbiddenCalls(t *testing.T) {
	t.Parallel()
	_, files := repository(t)
	for _, file := range files {
		ast.Inspect(file.AST, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok || pkg.Obj != nil {
				return true
			}
			name := pkg.Name + "." + selector.Sel.Name
			if allowed, found := forbidden[name]; found && !allowed(file) {
				t.Errorf("%s: %s is not for here", file.Fset.Position(node.Pos()), name)
			}
			return true
		})
	}
}

func TestNoInitFunctions(t *testing.T) {
	t.Parallel()
	_, files := repository(t)
	for _, file := range files {
		if file.Generated() {
			continue
		}
		for _, decl := range file.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init function", file.Fset.Position(fn.Pos()))
			}
		}
	}
}

// unfinished are the marks of work that is not done; spelled apart so that this file does not match.
var unfinished = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "not " + "implemented"}

func TestNothingIsMarkedUnfinished(t *testing.T) {
	t.Parallel()
	_, files := repository(t)
	for _, file := range files {
		for number, line := range strings.Split(string(file.Source), "\n") {
			for _, mark := range unfinished {
				if strings.Contains(line, mark) && !file.Generated() {
					t.Errorf("%s:%d: %q: finish it, or open an issue and say it in the documentation", file.Path, number+1, mark)
				}
			}
		}
	}
}
