// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import "go.yaml.in/yaml/v3"

// A shape says what a part of a document may hold. The tables of kinds.go are made of shapes; the reader
// checks documents against them and Schema prints them as JSON Schema, so that there is one truth.
type shape struct {
	kind shapeKind
	doc  string

	// Objects.
	fields []field
	// exactlyOne and atLeastOne name the fields that are the object's point.
	exactlyOne []string
	atLeastOne []string
	// verify checks what concerns several fields. Fields that are wrong in themselves are absent.
	verify func(*value, reporter)

	// nullable takes an empty value for none.
	nullable bool

	// Lists and maps: every item, every value. keyFormat checks a map's keys.
	item      *shape
	keyFormat *format
	minItems  int
	maxItems  int

	// Texts.
	format *format
	// integerToo makes a text that may be written as a bare number (ports).
	integerToo bool

	// Integers.
	min, max int
}

type shapeKind uint8

const (
	objectShape shapeKind = iota + 1
	listShape
	mapShape
	textShape
	integerShape
	booleanShape
	// anyShape is never looked into: what a cluster adds to an exported object.
	anyShape
)

// field is one key of an object.
type field struct {
	name     string
	required bool
	shape    *shape
}

// format is what a text must look like beyond being text.
type format struct {
	// check returns nil when the text is right.
	check func(string) *flaw
	// enum is what an editor offers; when closed is set nothing else is right.
	enum   []string
	closed bool
	// pattern is a JSON Schema pattern that accepts everything check accepts.
	pattern   string
	maxLength int
}

// flaw is what is wrong with a text.
type flaw struct{ reason, hint string }

// reporter notes a problem at a node.
type reporter func(at *yaml.Node, reason, hint string)

// value is a part of a document that was read by its shape.
type value struct {
	node    *yaml.Node
	members []member // objects and maps, in document order
	items   []*value
	text    string
	integer int
	truth   bool
}

// member is one key of an object or map with its value.
type member struct {
	name  string
	key   *yaml.Node
	value *value
}

// get returns the named member's value, or nil.
func (v *value) get(name string) *value {
	if m := v.member(name); m != nil {
		return m.value
	}
	return nil
}

func (v *value) member(name string) *member {
	if v == nil {
		return nil
	}
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i]
		}
	}
	return nil
}

// textOf returns the named member's text, or "".
func (v *value) textOf(name string) string {
	if m := v.get(name); m != nil {
		return m.text
	}
	return ""
}

// truthOf returns the named member's truth, or false.
func (v *value) truthOf(name string) bool {
	m := v.get(name)
	return m != nil && m.truth
}

// texts returns the items' texts.
func (v *value) texts() []string {
	if v == nil || len(v.items) == 0 {
		return nil
	}
	list := make([]string, len(v.items))
	for i, item := range v.items {
		list[i] = item.text
	}
	return list
}

// textMap returns a map's entries.
func (v *value) textMap() map[string]string {
	if v == nil || len(v.members) == 0 {
		return nil
	}
	m := make(map[string]string, len(v.members))
	for _, entry := range v.members {
		m[entry.name] = entry.value.text
	}
	return m
}

func textual(doc string, f *format) *shape { return &shape{kind: textShape, doc: doc, format: f} }

func listOf(doc string, item *shape) *shape { return &shape{kind: listShape, doc: doc, item: item} }

func boolean(doc string) *shape { return &shape{kind: booleanShape, doc: doc} }

func integer(doc string, low, high int) *shape {
	return &shape{kind: integerShape, doc: doc, min: low, max: high}
}

func object(doc string, fields ...field) *shape {
	return &shape{kind: objectShape, doc: doc, fields: fields}
}

func labels(doc string) *shape {
	return &shape{kind: mapShape, doc: doc, item: textual("", nil), keyFormat: &format{check: checkLabelKey}}
}

func optional(name string, s *shape) field { return field{name: name, shape: s} }

func required(name string, s *shape) field { return field{name: name, shape: s, required: true} }
