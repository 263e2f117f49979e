// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNotTaken means a test that would run nowhere.
var ErrNotTaken = errors.New("no test of this package takes it to the lab")

// scan is what a package's test files say about the lab.
type scan struct {
	// required are the tests that call vm.Require in their own body.
	required []string
	// wholesale is true when a test calls vm.TestPackage, byHand when one calls vm.RunTests with its own choice.
	wholesale, byHand bool
}

// scanTests reads the test files of a package's directory.
func scanTests(dir string) (scan, error) {
	var s scan
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return s, err
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return s, fmt.Errorf("looking for the lab's tests: %w", err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
				s.function(f)
			}
		}
	}
	slices.Sort(s.required)
	return s, nil
}

func (s *scan) function(f *ast.FuncDecl) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Name != "vm" {
			return true
		}
		switch sel.Sel.Name {
		case "Require":
			if strings.HasPrefix(f.Name.Name, "Test") && f.Recv == nil {
				s.required = append(s.required, f.Name.Name)
			}
		case "TestPackage":
			s.wholesale = true
		case "RunTests":
			s.byHand = true
		}
		return true
	})
}

// labTests returns a -test.run pattern for the tests of a directory that require the lab.
func labTests(dir string) (string, error) {
	s, err := scanTests(dir)
	if err != nil {
		return "", err
	}
	if len(s.required) == 0 {
		return "", fmt.Errorf("%w: no test calls vm.Require", ErrNotTaken)
	}
	return anyOf(slices.Compact(s.required)), nil
}

// anyOf is the pattern for these names and no others.
func anyOf(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }

// goesToLab says whether the named test of a directory will be run in the lab.
func goesToLab(dir, test string) error {
	s, err := scanTests(dir)
	if err != nil {
		return err
	}
	test, _, _ = strings.Cut(test, "/")
	switch {
	case s.byHand, s.wholesale && slices.Contains(s.required, test):
		return nil
	case s.wholesale:
		return fmt.Errorf("%w: call vm.Require in %s itself", ErrNotTaken, test)
	default:
		return fmt.Errorf("%w: call vm.TestPackage in one", ErrNotTaken)
	}
}
