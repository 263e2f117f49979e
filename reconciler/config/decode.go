// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeStrict copies node into out, a struct, and returns everything that does not fit.
func decodeStrict(file string, node *yaml.Node, out reflect.Value, path string) []Problem {
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		return []Problem{problemAt(file, node, "anchors and aliases are not accepted", "write the value out")}
	}
	switch out.Kind() {
	case reflect.Struct:
		return decodeStruct(file, node, out, path)
	case reflect.Slice:
		return decodeSlice(file, node, out, path)
	default:
		return decodeScalar(file, node, out, path)
	}
}

func decodeStruct(file string, node *yaml.Node, out reflect.Value, path string) []Problem {
	if isNull(node) {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return []Problem{problemAt(file, node, fmt.Sprintf("%s must be a mapping", named(path)), "")}
	}
	var problems []Problem
	fields, names := fieldsOf(out)
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		field, known := fields[key.Value]
		switch {
		case !known || key.Kind != yaml.ScalarNode:
			problems = append(problems, problemAt(file, key, fmt.Sprintf("unknown key %q", join(path, key.Value)), suggest(key.Value, names)))
		case seen[key.Value]:
			problems = append(problems, problemAt(file, key, fmt.Sprintf("%s is given twice", join(path, key.Value)), "keep one of them"))
		default:
			seen[key.Value] = true
			problems = append(problems, decodeStrict(file, value, field, join(path, key.Value))...)
		}
	}
	return problems
}

func decodeSlice(file string, node *yaml.Node, out reflect.Value, path string) []Problem {
	if isNull(node) {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		return []Problem{problemAt(file, node, fmt.Sprintf("%s must be a list", named(path)), "")}
	}
	var problems []Problem
	list := reflect.MakeSlice(out.Type(), len(node.Content), len(node.Content))
	for i, item := range node.Content {
		if d, ok := reflect.TypeAssert[interface{ setDefaults() }](list.Index(i).Addr()); ok {
			d.setDefaults()
		}
		problems = append(problems, decodeStrict(file, item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
	}
	out.Set(list)
	return problems
}

func decodeScalar(file string, node *yaml.Node, out reflect.Value, path string) []Problem {
	if node.Kind != yaml.ScalarNode {
		return []Problem{problemAt(file, node, fmt.Sprintf("%s must be a single value", named(path)), "")}
	}
	if isNull(node) {
		return []Problem{problemAt(file, node, fmt.Sprintf("%s has no value", named(path)), "leave the key out to get the default")}
	}
	if err := node.Decode(out.Addr().Interface()); err != nil {
		return []Problem{problemAt(file, node, fmt.Sprintf("%s: %q is no %s", named(path), clip(node.Value), kindName(out.Type())), kindHint(out.Type()))}
	}
	return nil
}

// fieldsOf returns the fields of a struct by their YAML names, and the names in order.
func fieldsOf(out reflect.Value) (map[string]reflect.Value, []string) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range out.NumField() {
		name, _, _ := strings.Cut(out.Type().Field(i).Tag.Get("yaml"), ",")
		fields[name] = out.Field(i)
		names = append(names, name)
	}
	return fields, names
}

func problemAt(file string, node *yaml.Node, message, hint string) Problem {
	return Problem{File: file, Line: node.Line, Column: node.Column, Message: message, Advice: hint}
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func named(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func kindName(t reflect.Type) string {
	if t == durationType {
		return "duration"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	default:
		return "text"
	}
}

func kindHint(t reflect.Type) string {
	if t == durationType {
		return "write a number and a unit, such as 30s, 5m or 1h"
	}
	return ""
}

// suggest names the known key that the writer may have meant.
func suggest(key string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if d := editDistance(strings.ToLower(key), strings.ToLower(name)); d < distance {
			best, distance = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known here: " + strings.Join(names, ", ")
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// yamlPosition turns the YAML reader's own error into a Problem; it knows the line only in its text.
func yamlPosition(file string, err error) Problem {
	line := 1
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, scanErr := fmt.Sscanf(text, "line %d:", &line); scanErr == nil {
		_, text, _ = strings.Cut(text, ": ")
	}
	var typed *yaml.TypeError
	if errors.As(err, &typed) && len(typed.Errors) > 0 {
		text = typed.Errors[0]
	}
	return Problem{File: file, Line: line, Column: 1, Message: "not YAML: " + clip(text), Advice: "indent with spaces and quote text that holds ': ' or '#'"}
}
