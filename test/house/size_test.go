// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"strings"
	"testing"
)

// The limits of STYLE; a longer thing needs a line in exceptions.txt.
const (
	maxFileLines     = 500
	maxFunctionLines = 60
	maxComplexity    = 15
)

// measure is one thing over a limit: what it is, and by how much.
type measure struct {
	what  string // "file PATH", "lines PATH FUNC" or "complexity PATH FUNC"
	value int
}

// exceptions reads exceptions.txt: "WHAT… VALUE" a line. The list only shrinks: an entry that is no
// longer needed, or whose value could be lower, fails the test.
func exceptions(t *testing.T) map[string]int {
	t.Helper()
	file, err := os.Open("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	allowed := map[string]int{}
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		var value int
		if _, err := fmt.Sscan(line[cut+1:], &value); err != nil {
			t.Fatalf("exceptions.txt: %q: %v", line, err)
		}
		allowed[line[:cut]] = value
	}
	return allowed
}

func TestSizes(t *testing.T) {
	t.Parallel()
	root, files := repository(t)
	allowed := exceptions(t)
	found := longC(t, root)
	for _, file := range files {
		if !file.Generated() {
			found = append(found, overLimits(file)...)
		}
	}
	for _, over := range found {
		limit, known := allowed[over.what]
		delete(allowed, over.what)
		switch {
		case !known:
			t.Errorf("%s: %d is over the limit", over.what, over.value)
		case over.value > limit:
			t.Errorf("%s: grew from %d to %d: the list of exceptions only shrinks", over.what, limit, over.value)
		case over.value < limit:
			t.Errorf("%s: shrank from %d to %d: write the new value into exceptions.txt", over.what, limit, over.value)
		}
	}
	for what := range allowed {
		t.Errorf("%s: no longer over a limit: remove it from exceptions.txt", what)
	}
}

// longC returns the C files that are over the limit of a file.
func longC(t *testing.T, root string) []measure {
	t.Helper()
	var over []measure
	for path, source := range sources(t, root, isC) {
		if lines := bytes.Count(source, []byte("\n")); lines > maxFileLines {
			over = append(over, measure{"file " + path, lines})
		}
	}
	return over
}

// overLimits returns what in one file is over a limit. A test is read from top to bottom, table included: for
// tests only the file's length counts.
func overLimits(file File) []measure {
	var over []measure
	if lines := strings.Count(string(file.Source), "\n"); lines > maxFileLines {
		over = append(over, measure{"file " + file.Path, lines})
	}
	for _, decl := range file.AST.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		name := file.Path + " " + functionName(fn)
		start, end := file.Fset.Position(fn.Pos()).Line, file.Fset.Position(fn.End()).Line
		if lines := end - start + 1; lines > maxFunctionLines && !file.Test() {
			over = append(over, measure{"lines " + name, lines})
		}
		if branches := complexity(fn); branches > maxComplexity && !file.Test() {
			over = append(over, measure{"complexity " + name, branches})
		}
	}
	return over
}

func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if index, ok := receiver.(*ast.IndexExpr); ok {
		receiver = index.X
	}
	if ident, ok := receiver.(*ast.Ident); ok {
		return ident.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// complexity is McCabe's number as gocyclo counts it: one, and one for each branch.
func complexity(fn *ast.FuncDecl) int {
	branches := 1
	ast.Inspect(fn, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			branches++
		case *ast.CaseClause:
			if node.List != nil {
				branches++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				branches++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				branches++
			}
		}
		return true
	})
	return branches
}
