// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrKind means that there is no such kind of policy.
var ErrKind = errors.New("unknown kind")

// Schema returns the JSON Schema (draft 2020-12) of a kind, for editors. It is printed from the shapes that
// the parser follows, so that it refuses nothing that the parser accepts but the words yes, no, on and off for
// booleans, which YAML 1.2 and so JSON Schema take for text. What a schema cannot say (the syntax of patterns,
// uniqueness, what several fields mean together) only the parser refuses.
func Schema(kind Kind) ([]byte, error) {
	s := kinds[kind]
	if s == nil {
		return nil, fmt.Errorf("%w %q: known are %s", ErrKind, kind, kindWords())
	}
	p := printer{defs: map[string]any{}}
	root := p.shape(s)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "urn:muster:schema:" + string(kind)
	root["title"] = string(kind)
	if len(p.defs) > 0 {
		root["$defs"] = p.defs
	}
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", kind, err)
	}
	return append(data, '\n'), nil
}

// printer prints shapes; formats with long lists of words are printed once, as definitions.
type printer struct{ defs map[string]any }

func (p *printer) shape(s *shape) map[string]any {
	out := map[string]any{}
	if s.doc != "" {
		out["description"] = s.doc
	}
	switch s.kind {
	case objectShape:
		p.object(s, out)
	case listShape:
		out["type"] = nullable(s, "array")
		out["items"] = p.shape(s.item)
		if s.minItems > 0 {
			out["minItems"] = s.minItems
		}
		if s.maxItems > 0 {
			out["maxItems"] = s.maxItems
		}
	case mapShape:
		out["type"] = nullable(s, "object")
		out["additionalProperties"] = p.shape(s.item)
	case textShape:
		p.text(s, out)
	case integerShape:
		out["type"] = "integer"
		if s.min != math.MinInt || s.max != math.MaxInt {
			out["minimum"], out["maximum"] = s.min, s.max
		}
	case booleanShape:
		out["type"] = "boolean"
	}
	return out
}

func nullable(s *shape, name string) any {
	if s.nullable {
		return []string{name, "null"}
	}
	return name
}

func (p *printer) object(s *shape, out map[string]any) {
	properties := map[string]any{}
	var required []string
	for _, f := range s.fields {
		properties[f.name] = p.shape(f.shape)
		if f.required {
			required = append(required, f.name)
		}
	}
	out["type"], out["properties"], out["additionalProperties"] = "object", properties, false
	if len(s.exactlyOne) == 1 {
		required = append(required, s.exactlyOne...)
	}
	if len(required) > 0 {
		out["required"] = required
	}
	if len(s.exactlyOne) > 1 {
		out["oneOf"] = alternatives(s.exactlyOne)
	}
	if len(s.atLeastOne) > 0 {
		out["anyOf"] = alternatives(s.atLeastOne)
	}
}

func alternatives(names []string) []any {
	var list []any
	for _, name := range names {
		list = append(list, map[string]any{"required": []string{name}})
	}
	return list
}

func (p *printer) text(s *shape, out map[string]any) {
	if s.integerToo {
		// A pattern says nothing of numbers, so that the two types need no alternatives.
		out["type"] = []string{"string", "integer"}
	} else {
		out["type"] = "string"
	}
	f := s.format
	if f == nil {
		return
	}
	if len(f.enum) > 20 {
		out["$ref"] = "#/$defs/" + p.define(f)
		return
	}
	constrain(f, out)
}

// define puts a format among the definitions and returns its name.
func (p *printer) define(f *format) string {
	name := "names-" + f.enum[0]
	p.defs[name] = constrain(f, map[string]any{})
	return name
}

// constrain adds what a format demands: one of its words when it is closed, and otherwise one of them or
// something of its pattern, so that an editor still offers the words.
func constrain(f *format, out map[string]any) map[string]any {
	if f.maxLength > 0 {
		out["maxLength"] = f.maxLength
	}
	switch {
	case f.closed && len(f.enum) == 1:
		out["const"] = f.enum[0]
	case f.closed:
		out["enum"] = slices.Clone(f.enum)
	case len(f.enum) > 0:
		out["anyOf"] = []any{map[string]any{"enum": slices.Clone(f.enum)}, map[string]any{"pattern": f.pattern}}
	case f.pattern != "":
		out["pattern"] = f.pattern
	}
	return out
}
