// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ErrNoLabel says that a policy has no such label in this file.
var ErrNoLabel = errors.New("no such label")

// LabelChange is a change of one label in one line of a file.
type LabelChange struct {
	Line     int
	Old, New string // the line
	Text     []byte // of the whole file, after it
}

// Relabel changes the value of a label that a policy has, and nothing else in the file: no comment and no
// spelling is lost.
func Relabel(name string, data []byte, id ID, key, value string) (*LabelChange, error) {
	node, err := labelNode(data, id, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	old := string(lines[node.Line-1])
	runes := []rune(old)
	before, rest := string(runes[:node.Column-1]), string(runes[node.Column-1:])
	quote := ""
	if strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "'") {
		quote = rest[:1]
	}
	after, found := strings.CutPrefix(rest, quote+node.Value+quote)
	if !found {
		return nil, fmt.Errorf("%s:%d: the label %s is written in a way that only a person should change", name, node.Line, key)
	}
	c := &LabelChange{Line: node.Line, Old: strings.TrimRight(old, "\r\n")}
	line := before + quote + value + quote + after
	c.New = strings.TrimRight(line, "\r\n")
	lines = slices.Clone(lines)
	lines[node.Line-1] = []byte(line)
	c.Text = bytes.Join(lines, nil)
	// What was meant is what it now says.
	if again, err := labelNode(c.Text, id, key); err != nil || again.Value != value {
		return nil, fmt.Errorf("%s:%d: the label %s cannot be changed in place", name, node.Line, key)
	}
	return c, nil
}

// labelNode finds the value of a policy's label.
func labelNode(data []byte, id ID, key string) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %s of %s", ErrNoLabel, key, id.Name)
		} else if err != nil {
			return nil, err
		}
		var head struct {
			Kind     Kind
			Metadata struct {
				Name, Namespace string
				Labels          map[string]yaml.Node
			}
		}
		if document.Decode(&head) != nil {
			continue // not a policy; the parser says so
		}
		m := head.Metadata
		if label, has := m.Labels[key]; has && head.Kind == id.Kind && m.Name == id.Name &&
			(id.Namespace == "" || m.Namespace == id.Namespace) && label.Kind == yaml.ScalarNode {
			return &label, nil
		}
	}
}
