// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth is how deep a document may nest. The kinds need 9 levels; an export's managedFields a few more.
const maxDepth = 64

// reader reads the nodes of one document by its shape and notes every problem.
type reader struct {
	file string
	// lines is how many lines of the file stand before the document.
	lines    int
	problems Problems
}

func (r *reader) position(n *yaml.Node) Position {
	return Position{File: r.file, Line: n.Line + r.lines, Column: n.Column}
}

func (r *reader) report(at *yaml.Node, reason, hint string) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{Position: r.position(at), Message: reason, Hint: hint})
	}
}

// sane refuses what makes a document mean more than it shows: aliases, anchors, merge keys, tags, depth.
func (r *reader) sane(n *yaml.Node, depth int) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.report(n, "alias *"+n.Value, "write the value out: aliases are not accepted in policies")
	case n.Anchor != "":
		r.report(n, "anchor &"+n.Anchor, "leave it out: anchors and aliases are not accepted in policies")
	case n.Style&yaml.TaggedStyle != 0:
		r.report(n, "tag "+n.Tag, "leave it out, or quote the value to make it text")
	case depth > maxDepth:
		r.report(n, fmt.Sprintf("nesting exceeds the limit of %d levels", maxDepth), "no policy needs as many: look for brackets or indentation that repeat")
	default:
		ok := true
		for _, child := range n.Content {
			ok = r.sane(child, depth+1) && ok
		}
		return ok
	}
	return false
}

// read returns the value of n, or nil when it is not of the shape or nothing more is to be told. at is the path to n, for messages.
func (r *reader) read(n *yaml.Node, s *shape, at string) *value {
	if len(r.problems) >= maxProblems {
		return nil
	}
	switch s.kind {
	case objectShape:
		return r.object(n, s, at)
	case listShape:
		return r.list(n, s, at)
	case mapShape:
		return r.mapping(n, s, at)
	case textShape:
		return r.text(n, s, at)
	case integerShape:
		return r.integer(n, s, at)
	case booleanShape:
		return r.boolean(n, at)
	}
	if s.kind == anyShape {
		r.unread(n)
	}
	return &value{node: n}
}

// unread looks for keys that stand twice in what is otherwise ignored: no document with one is read.
func (r *reader) unread(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			r.unread(item)
		}
		return
	}
	r.keys(n, func(_, val *yaml.Node) { r.unread(val) })
}

// keys walks the keys of a mapping and refuses what is no plain key or stands twice.
func (r *reader) keys(n *yaml.Node, each func(key, val *yaml.Node)) {
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch first := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			r.report(key, fmt.Sprintf("key %q is not text", brief(key.Value)), "quote it")
		case first != nil:
			r.report(key, fmt.Sprintf("duplicate key %q, first at line %d", brief(key.Value), first.Line+r.lines), "keep one of them")
		default:
			seen[key.Value] = key
			each(key, n.Content[i+1])
		}
	}
}

func (r *reader) object(n *yaml.Node, s *shape, at string) *value {
	if n.Kind != yaml.MappingNode {
		r.mistyped(n, at, "a mapping")
		return nil
	}
	before := len(r.problems)
	v := &value{node: n}
	// present also counts fields that are there but wrong: they are not missing as well.
	present := map[string]*yaml.Node{}
	r.keys(n, func(key, val *yaml.Node) {
		f := findField(s.fields, key.Value)
		if f == nil {
			r.report(key, fmt.Sprintf("unknown field %q in %s", brief(key.Value), named(at)), suggest(key.Value, s.fields))
			return
		}
		present[key.Value] = key
		if sub := r.read(val, f.shape, join(at, f.name)); sub != nil {
			v.members = append(v.members, member{f.name, key, sub})
		}
	})
	for _, f := range s.fields {
		if f.required && present[f.name] == nil {
			r.report(n, fmt.Sprintf("%s lacks %s", named(at), f.name), f.name+": "+f.shape.doc)
		}
	}
	r.objects(n, s, at, present, len(r.problems) == before)
	if s.verify != nil {
		s.verify(v, r.report)
	}
	return v
}

// objects checks that the object says what it is about, once. A misspelt field may be the missing one, so
// that nothing is reported as missing when another problem stands in the same object.
func (r *reader) objects(n *yaml.Node, s *shape, at string, present map[string]*yaml.Node, clean bool) {
	if len(s.exactlyOne) > 0 {
		var found []*yaml.Node
		for _, name := range s.exactlyOne {
			if key := present[name]; key != nil {
				found = append(found, key)
			}
		}
		if len(found) > 1 {
			slices.SortFunc(found, func(a, b *yaml.Node) int {
				return (a.Line-b.Line)*(1<<20) + a.Column - b.Column
			})
			r.report(found[1], fmt.Sprintf("%s has both %s", at, strings.Join(s.exactlyOne, " and ")), "write two rules")
		}
		if len(found) == 0 && clean {
			r.report(n, fmt.Sprintf("%s has no object: %s is missing", at, strings.Join(s.exactlyOne, " or ")), "say what the rule is about")
		}
	}
	if len(s.atLeastOne) > 0 && clean {
		for _, name := range s.atLeastOne {
			if present[name] != nil {
				return
			}
		}
		r.report(n, fmt.Sprintf("%s has no object: one of %s is missing", at, strings.Join(s.atLeastOne, ", ")), "say what the rule is about")
	}
}

func findField(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func (r *reader) list(n *yaml.Node, s *shape, at string) *value {
	if s.nullable && n.ShortTag() == "!!null" {
		return &value{node: n}
	}
	if n.Kind != yaml.SequenceNode {
		r.mistyped(n, at, "a list")
		return nil
	}
	if len(n.Content) < s.minItems {
		r.report(n, at+" is empty", "give at least one: "+s.doc)
		return nil
	}
	if s.maxItems > 0 && len(n.Content) > s.maxItems {
		r.report(n.Content[s.maxItems], fmt.Sprintf("%s has %d items; the limit is %d", at, len(n.Content), s.maxItems), fmt.Sprintf("keep %d of them; the field is: %s", s.maxItems, s.doc))
		return nil
	}
	v := &value{node: n}
	for i, item := range n.Content {
		if sub := r.read(item, s.item, at+"["+strconv.Itoa(i)+"]"); sub != nil {
			v.items = append(v.items, sub)
		}
	}
	return v
}

func (r *reader) mapping(n *yaml.Node, s *shape, at string) *value {
	if s.nullable && n.ShortTag() == "!!null" {
		return &value{node: n}
	}
	if n.Kind != yaml.MappingNode {
		r.mistyped(n, at, "a mapping")
		return nil
	}
	v := &value{node: n}
	r.keys(n, func(key, val *yaml.Node) {
		if s.keyFormat != nil {
			if f := s.keyFormat.check(key.Value); f != nil {
				r.report(key, at+": "+f.reason, f.hint)
				return
			}
		}
		if sub := r.read(val, s.item, at+"."+brief(key.Value)); sub != nil {
			v.members = append(v.members, member{key.Value, key, sub})
		}
	})
	return v
}

func (r *reader) text(n *yaml.Node, s *shape, at string) *value {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && (!s.integerToo || n.ShortTag() != "!!int") {
		r.mistyped(n, at, "text")
		return nil
	}
	if s.format != nil {
		if f := s.format.check(n.Value); f != nil {
			r.report(n, at+": "+f.reason, f.hint)
			return nil
		}
	}
	return &value{node: n, text: n.Value}
}

func (r *reader) integer(n *yaml.Node, s *shape, at string) *value {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		r.mistyped(n, at, "a whole number")
		return nil
	}
	i, err := strconv.Atoi(n.Value)
	if err != nil || i < s.min || i > s.max {
		r.report(n, fmt.Sprintf("%s: %s is not a number from %d to %d", at, brief(n.Value), s.min, s.max), fmt.Sprintf("write a whole number from %d to %d: %s", s.min, s.max, s.doc))
		return nil
	}
	return &value{node: n, integer: i}
}

// boolean accepts the words that kubectl accepts (YAML 1.1) when they are not quoted.
func (r *reader) boolean(n *yaml.Node, at string) *value {
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		switch n.Value {
		case "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON":
			return &value{node: n, truth: true}
		case "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF":
			return &value{node: n}
		}
	}
	r.mistyped(n, at, "true or false")
	return nil
}

// typeHints say how a value of each type is written.
var typeHints = map[string]string{
	"a mapping":      "write it as indented lines of FIELD: VALUE",
	"a list":         "begin each item with - on a line of its own, or write [A, B]",
	"text":           "one value stands here, not several: see muster schema KIND",
	"a whole number": "write its digits only, such as 5",
	"true or false":  "write true or false, without quotes",
}

// mistyped reports a value of another type than the one wanted.
func (r *reader) mistyped(n *yaml.Node, at, want string) {
	have := ""
	hint := typeHints[want]
	switch {
	case n.Kind == yaml.MappingNode:
		have = "a mapping"
	case n.Kind == yaml.SequenceNode:
		have = "a list"
	case n.ShortTag() == "!!null":
		have, hint = "empty", "leave the field out or give it a value"
	default:
		have = strconv.Quote(brief(n.Value))
		switch n.ShortTag() {
		case "!!int", "!!float":
			have = "the number " + brief(n.Value)
		case "!!bool":
			have = "the boolean " + brief(n.Value)
		}
		if want == "text" {
			hint = "quote it: " + strconv.Quote(brief(n.Value))
		} else if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 && want != "a mapping" && want != "a list" {
			hint = "write it without quotes"
		}
	}
	r.report(n, fmt.Sprintf("%s must be %s, not %s", named(at), want, have), hint)
}

// join is the path to a field.
func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// named is the path, or what the root is called.
func named(at string) string {
	if at == "" {
		return "policy"
	}
	return at
}

// brief keeps a message readable whatever the document holds.
func brief(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
