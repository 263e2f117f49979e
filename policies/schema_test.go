// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compileSchemas(t *testing.T) map[Kind]*jsonschema.Schema {
	t.Helper()
	schemas := map[Kind]*jsonschema.Schema{}
	for _, kind := range Kinds() {
		text, err := Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("schema.json", doc); err != nil {
			t.Fatal(err)
		}
		if schemas[kind], err = c.Compile("schema.json"); err != nil {
			t.Fatal(err)
		}
	}
	return schemas
}

// schemaAccepts says whether every document of a text is right by the schema of its kind.
func schemaAccepts(t *testing.T, schemas map[Kind]*jsonschema.Schema, text string) bool {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc any
		if err := decoder.Decode(&doc); err != nil {
			return strings.Contains(err.Error(), "EOF")
		}
		if doc == nil {
			continue
		}
		data, err := json.Marshal(doc)
		if err != nil {
			return false
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		root, _ := doc.(map[string]any)
		kind, _ := root["kind"].(string)
		schema := schemas[Kind(kind)]
		if schema == nil || schema.Validate(instance) != nil {
			return false
		}
	}
}

// TestSchemaAcceptsWhatTheParserAccepts holds the schemas against every policy of the scenarios and shapes.
func TestSchemaAcceptsWhatTheParserAccepts(t *testing.T) {
	t.Parallel()
	schemas := compileSchemas(t)
	refused := 0
	for _, r := range scenarioReleases(t) {
		accepts := schemaAccepts(t, schemas, r.text)
		_, err := ParseDocument("p", []byte(r.text))
		if err == nil && !accepts {
			t.Errorf("%s: the schema refuses what the parser accepts", r.name)
		}
		// Only the parser knows duplicates and sizes.
		onlyParser := strings.HasPrefix(r.name, "X11") || strings.HasPrefix(r.name, "X12") || strings.HasPrefix(r.name, "X21")
		if err != nil && accepts && !onlyParser {
			t.Errorf("%s: the schema accepts what the parser refuses: %v", r.name, err)
		}
		if !accepts {
			refused++
		}
	}
	if refused < 11 {
		t.Errorf("the schemas refused only %d documents", refused)
	}
	for name, text := range shapes(t) {
		if !schemaAccepts(t, schemas, text) {
			t.Errorf("%s: the schema refuses what the parser accepts", name)
		}
	}
	for i, c := range selectorCases() {
		if text := policyText(c.kind, c.text, "p"); !schemaAccepts(t, schemas, text) {
			t.Errorf("selector %d: the schema refuses what the parser accepts: %s", i, text)
		}
	}
}

func TestSchemaOfUnknownKind(t *testing.T) {
	t.Parallel()
	if _, err := Schema("Pod"); !errors.Is(err, ErrKind) {
		t.Errorf("%v", err)
	}
}
