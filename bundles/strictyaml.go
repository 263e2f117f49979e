// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxYAML bounds trust.yaml and muster.yaml.
const maxYAML = 1 << 20

// strictYAML decodes exactly one document into target and refuses, with line and column, unknown fields,
// duplicate keys, anchors, aliases, merge keys and explicit tags.
func strictYAML(name string, data []byte, target any) error {
	if len(data) > maxYAML {
		return fmt.Errorf("%s: larger than %d bytes", name, maxYAML)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: the file is empty", name)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document", name)
	}
	if len(doc.Content) != 1 {
		return fmt.Errorf("%s: the file is empty", name)
	}
	if err := checkNode(name, doc.Content[0], reflect.TypeOf(target).Elem()); err != nil {
		return err
	}
	if err := doc.Content[0].Decode(target); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func at(name string, n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s", name, n.Line, n.Column, fmt.Sprintf(format, args...))
}

// checkNode compares the document's shape with the type that it will be decoded into.
func checkNode(name string, n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return at(name, n, "anchors and aliases are not accepted")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return at(name, n, "explicit tags are not accepted")
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[yaml.Node]() || t.Kind() == reflect.Interface {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkStruct(name, n, t)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return at(name, n, "a list is wanted here")
		}
		for _, c := range n.Content {
			if err := checkNode(name, c, t.Elem()); err != nil {
				return err
			}
		}
		return nil
	default:
		if n.Kind != yaml.ScalarNode {
			return at(name, n, "a single value is wanted here")
		}
		if n.Tag == "!!null" {
			return at(name, n, "the value is empty")
		}
		return nil
	}
}

func checkStruct(name string, n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.ScalarNode && reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return at(name, n, "a mapping is wanted here")
	}
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if tag != "" && tag != "-" {
			fields[tag] = f.Type
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Anchor != "" || key.Kind != yaml.ScalarNode {
			return at(name, key, "a plain field name is wanted here")
		}
		ft, ok := fields[key.Value]
		if !ok {
			return at(name, key, "unknown field %q", key.Value)
		}
		if seen[key.Value] {
			return at(name, key, "field %q is given twice", key.Value)
		}
		seen[key.Value] = true
		if err := checkNode(name, value, ft); err != nil {
			return err
		}
	}
	return nil
}
