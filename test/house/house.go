// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package house keeps the rules of this repository as tests: who may import whom, how long a function may
// grow, what every file must carry, what nobody may call, and that generated files are what their
// generators make today.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Module is the module's path.
const Module = "github.com/muster-fleet/muster"

// File is one parsed Go file of the repository.
type File struct {
	// Path is relative to the repository's root, with slashes.
	Path   string
	Source []byte
	AST    *ast.File
	Fset   *token.FileSet
}

// Generated reports whether the file says that a generator wrote it.
func (f File) Generated() bool { return ast.IsGenerated(f.AST) }

// Test reports whether the file is built for tests only.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Root returns the repository's root, found upwards from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil && filepath.Base(dir) != "tools" {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fs.ErrNotExist
		}
		dir = parent
	}
}

// Paths lists every regular file below root that belongs to the repository, with slashes and relative to
// root: what Git ignores and the folders of nested modules' caches are left out.
func Paths(root string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch entry.Name() {
			case ".git", "bin", "dist", ".cache":
				return fs.SkipDir
			}
			return nil
		}
		if entry.Name() == ".git" {
			return nil // the checkout is a worktree or a submodule
		}
		rel, err := filepath.Rel(root, path)
		paths = append(paths, filepath.ToSlash(rel))
		return err
	})
	return paths, err
}

// GoFiles parses every Go file of the repository.
func GoFiles(root string) ([]File, error) {
	paths, err := Paths(root)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, path := range paths {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "/testdata/") {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, path, source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: path, Source: source, AST: parsed, Fset: fset})
	}
	return files, nil
}
