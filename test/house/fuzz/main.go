// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command fuzz runs every fuzz target of the repository, one after the other, for the given time each.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-fleet/muster/test/house"
)

func main() {
	each := flag.Duration("time", time.Minute, "how long to fuzz each target")
	flag.Parse()
	if err := run(*each); err != nil {
		fmt.Fprintf(os.Stderr, "fuzz: error: %v\n", err)
		os.Exit(1)
	}
}

// run fuzzes every target and reports those that failed together at the end.
func run(each time.Duration) error {
	root, err := house.Root()
	if err != nil {
		return err
	}
	files, err := house.GoFiles(root)
	if err != nil {
		return err
	}
	var failed []string
	for _, file := range files {
		for _, target := range targets(file) {
			pkg := "./" + filepath.Dir(file.Path)
			fmt.Printf("%s %s\n", pkg, target)
			cmd := exec.Command("go", "test", pkg, "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", each.String())
			cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				failed = append(failed, pkg+" "+target)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

func targets(file house.File) []string {
	var names []string
	if !file.Test() {
		return nil
	}
	for _, decl := range file.AST.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
			names = append(names, fn.Name.Name)
		}
	}
	return names
}
