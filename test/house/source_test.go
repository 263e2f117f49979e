// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	goHeader  = "// Copyright The Muster Authors\n// SPDX-License-Identifier: Apache-2.0\n"
	bpfHeader = "SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)"
	ourHeader = "SPDX-License-Identifier: Apache-2.0"
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
	for path, source := range sources(t, root, func(path string) bool { return headerOf(path) != "" }) {
		// A build constraint that keeps the go command away, or what a script is run by, may stand before it.
		head := bytes.Join(bytes.SplitN(source, []byte("\n"), 5)[:3], []byte("\n"))
		if want := headerOf(path); !bytes.Contains(head, []byte(want)) {
			t.Errorf("%s: the first lines do not hold %q", path, want)
		}
	}
}

func isC(path string) bool { return filepath.Ext(path) == ".c" || filepath.Ext(path) == ".h" }

// headerOf is what a file that is not Go's must carry; "" for one that carries none.
func headerOf(path string) string {
	ext := filepath.Ext(path)
	switch {
	case isC(path) && strings.HasPrefix(path, "bpf/"):
		return bpfHeader
	case isC(path), ext == ".sh", ext == ".service", ext == ".mk", filepath.Base(path) == "Makefile", path == ".ci/run":
		return ourHeader
	}
	return ""
}

// sources reads the repository's files for which want is true.
func sources(t *testing.T, root string, want func(path string) bool) map[string][]byte {
	t.Helper()
	paths, err := Paths(root)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string][]byte{}
	for _, path := range paths {
		if !want(path) {
			continue
		}
		if contents[path], err = os.ReadFile(filepath.Join(root, path)); err != nil {
			t.Fatal(err)
		}
	}
	if len(contents) == 0 {
		t.Fatal("no such file: the test looks at nothing")
	}
	return contents
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

// forbidden calls, and where each is allowed all the same. See TestNoSleeping, too.
var forbidden = map[string]func(File) bool{
	"time.Sleep": func(File) bool { return false },
	"os.Exit":    func(f File) bool { return f.AST.Name.Name == "main" || f.Test() },
	"log.Fatal":  func(File) bool { return false },
}

// mayWait are the functions that may wait for nothing but time, and why.
var mayWait = map[string]string{
	"test/agent/watchdog_test.go": "only time can show that nothing happens",
	"test/bench/guest/main.go":    "a machine has to come to rest before it is measured",
}

// TestNoSleeping finds the statement "<-time.After(…)", which is time.Sleep by another name. In a select beside something
// else that may happen it is a deadline, or a pause that can be ended, and is not meant. What a timer or a ticker of one's
// own is received from cannot be told from a deadline by looking at one statement, and is not found.
func TestNoSleeping(t *testing.T) {
	t.Parallel()
	_, files := repository(t)
	found := map[string]bool{}
	for _, file := range files {
		cases := map[ast.Node]bool{}
		ast.Inspect(file.AST, func(node ast.Node) bool {
			if list, ok := node.(*ast.BlockStmt); ok && len(list.List) > 1 {
				for _, stmt := range list.List {
					if clause, ok := stmt.(*ast.CommClause); ok {
						cases[clause.Comm] = true
					}
				}
			}
			if stmt, ok := node.(*ast.ExprStmt); ok && !cases[node] && isSleep(stmt.X) {
				found[file.Path] = true
				if mayWait[file.Path] == "" {
					t.Errorf("%s: this is a sleep: wait for what has to happen", file.Fset.Position(node.Pos()))
				}
			}
			return true
		})
	}
	for path := range mayWait {
		if !found[path] {
			t.Errorf("%s does not sleep any more: remove it from mayWait", path)
		}
	}
}

func isSleep(expr ast.Expr) bool {
	receive, ok := expr.(*ast.UnaryExpr)
	if !ok || receive.Op != token.ARROW {
		return false
	}
	call, ok := receive.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	return ok && pkg.Obj == nil && pkg.Name == "time" && selector.Sel.Name == "After"
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
