// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package fits holds what verbs print with -o json against the schemas that docs/commands.md promises, in stories.
package fits

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/muster-fleet/muster/test/house"
)

// Command is "fits SCHEMA": what the command before printed is a document of that schema.
func Command(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fits SCHEMA")
	}
	root, err := house.Root()
	ts.Check(err)
	text, err := os.ReadFile(filepath.Join(root, "docs/schema/cli", args[0]+".json"))
	ts.Check(err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	ts.Check(err)
	compiler := jsonschema.NewCompiler()
	ts.Check(compiler.AddResource("schema.json", doc))
	schema, err := compiler.Compile("schema.json")
	ts.Check(err)
	printed, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(ts.ReadFile("stdout"))))
	ts.Check(err)
	if err := schema.Validate(printed); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
}
