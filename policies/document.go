// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxDocument is the most bytes of one YAML document; a longer one is refused before it is looked at.
const MaxDocument = 1 << 20

// ParseDocument parses one file of YAML documents. The error is Problems: every problem of every document.
// name is only used in positions.
func ParseDocument(name string, data []byte) ([]*Policy, error) {
	list, problems := parseFile(name, data)
	if len(problems) == 0 {
		problems = duplicates(list)
	}
	if err := problems.orNil(); err != nil {
		return nil, err
	}
	return list, nil
}

// parseFile is ParseDocument without the look for duplicates.
func parseFile(name string, data []byte) ([]*Policy, Problems) {
	var list []*Policy
	var problems Problems
	for _, c := range split(data) {
		if isBlank(c.data) {
			continue
		}
		r := &reader{file: name, lines: c.lines}
		list = append(list, r.chunk(c.data)...)
		problems = append(problems, r.problems...)
		if len(problems) >= maxProblems {
			problems = append(problems[:maxProblems:maxProblems], Problem{
				Position: problems[maxProblems-1].Position, Message: "too many problems: the rest of the file is not looked at",
				Hint: "correct the ones above first",
			})
			break
		}
	}
	return list, problems
}

// chunk is the text of one document and the number of lines before it.
type chunk struct {
	data  []byte
	lines int
}

// split cuts a file at its document markers. YAML forbids a marker inside every kind of scalar, so that no
// parsing is needed to find them, and the size limit can be kept before any parsing.
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	var list []chunk
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(data); line++ {
		end := bytes.IndexByte(data[at:], '\n') + at + 1
		if end == at {
			end = len(data)
		}
		if at > start && isMarker(data[at:end]) {
			list = append(list, chunk{data[start:at], startLine})
			start, startLine = at, line
		}
		at = end
	}
	return append(list, chunk{data[start:], startLine})
}

func isMarker(line []byte) bool {
	return bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0)
}

// isBlank says that a chunk holds nothing but its marker, blank lines and comments. It spares the YAML
// reader, which is slow to start, the hundred thousands of empty documents that a small file can hold.
func isBlank(data []byte) bool {
	if isMarker(data) {
		data = data[3:]
	}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			return false
		}
	}
	return len(data) <= MaxDocument
}

// chunk reads the documents of one chunk: one, or more when they end in "...".
func (r *reader) chunk(data []byte) []*Policy {
	start := &yaml.Node{Line: 1, Column: 1}
	if len(data) > MaxDocument {
		r.report(start, fmt.Sprintf("document of %d bytes exceeds the limit of %d", len(data), MaxDocument), "split it into several documents")
		return nil
	}
	if at := invalidPlace(data); at != nil {
		r.report(at, "the file is not UTF-8 text with lines that end in \\n or \\r\\n", "save it as UTF-8 with plain line ends, and write what stands here as an escape in double quotes")
		return nil
	}
	var list []*Policy
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			at, reason := syntaxError(data, err)
			r.report(at, "not YAML: "+reason, syntaxHint(reason))
			return list
		}
		list = append(list, r.document(&n)...)
	}
}

// invalidPlace is where the text is not UTF-8 or holds one of the line breaks that YAML knows and nobody
// else counts (a lone \r, NEL, LS, PS): with them no position would mean what an editor shows.
func invalidPlace(data []byte) *yaml.Node {
	at := 0
	for at < len(data) {
		c, size := utf8.DecodeRune(data[at:])
		lone := c == '\r' && !bytes.HasPrefix(data[at+1:], []byte("\n"))
		if c == utf8.RuneError && size == 1 || lone || c == '\u0085' || c == '\u2028' || c == '\u2029' {
			break
		}
		at += size
	}
	if at == len(data) {
		return nil
	}
	line := bytes.LastIndexByte(data[:at], '\n') + 1
	return &yaml.Node{Line: bytes.Count(data[:at], []byte("\n")) + 1, Column: utf8.RuneCount(data[line:at]) + 1}
}

// document reads one document, or the items of an exported List.
func (r *reader) document(n *yaml.Node) []*Policy {
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		return nil
	}
	root := n.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" && root.Anchor == "" {
		return nil // nothing but comments
	}
	if !r.sane(root, 0) {
		return nil
	}
	if kind := fieldOf(root, "kind"); kind != nil && kind.Value == "List" {
		return r.exportedList(root)
	}
	return r.policy(root)
}

// exportedList reads what "kubectl get -o yaml" writes for several objects.
func (r *reader) exportedList(root *yaml.Node) []*Policy {
	item := &shape{} // read by policy
	v := r.read(root, object(
		"",
		required("apiVersion", textual("v1.", nil)), required("kind", textual("List.", nil)),
		required("items", listOf("The policies.", item)), optional("metadata", &shape{kind: anyShape}),
	), "")
	var list []*Policy
	if items := v.get("items"); items != nil {
		for _, i := range items.items {
			list = append(list, r.policy(i.node)...)
		}
	}
	return list
}

// policy reads one policy; it answers none when there was a problem.
func (r *reader) policy(root *yaml.Node) []*Policy {
	if root.Kind != yaml.MappingNode {
		r.mistyped(root, "", "a mapping")
		return nil
	}
	before := len(r.problems)
	kind := fieldOf(root, "kind")
	if kind == nil {
		r.report(root, "policy lacks kind", "known: "+kindWords())
		r.apiVersion(root)
		return nil
	}
	s := kinds[Kind(kind.Value)]
	if s == nil || kind.Kind != yaml.ScalarNode {
		r.apiVersion(root)
		hint := "known: " + kindWords()
		if near := nearest(kind.Value, strings.Split(kindWords(), ", ")); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.report(kind, quoted(kind.Value)+" is no kind of policy", hint)
		return nil
	}
	v := r.read(root, s, "")
	if len(r.problems) > before || v == nil {
		return nil
	}
	return []*Policy{buildPolicy(Kind(kind.Value), v, r.position)}
}

// apiVersion checks the version of a document whose kind is unknown.
func (r *reader) apiVersion(root *yaml.Node) {
	if v := fieldOf(root, "apiVersion"); v != nil {
		r.text(v, kinds[KindHost].fields[0].shape, "apiVersion")
	}
}

func kindWords() string {
	var words []string
	for _, k := range Kinds() {
		words = append(words, string(k))
	}
	return strings.Join(words, ", ")
}

// fieldOf returns the value of a mapping's field, or nil.
func fieldOf(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}
