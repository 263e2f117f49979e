// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ErrLabels is the kind of every error of ParseLabels.
var ErrLabels = errors.New("bad labels file")

// The bounds of a labels file.
const (
	maxLabels    = 256
	maxKeyPrefix = 253
	maxLabelName = 63
)

// The syntax of Kubernetes' labels.
var (
	labelName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// LabelsError says what is wrong with a labels file, and where.
type LabelsError struct {
	File         string
	Line, Column int // 0 when the whole file is meant
	Reason       string
	Advice       string
}

// Error implements error.
func (e *LabelsError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Reason)
}

// Unwrap makes errors.Is(err, ErrLabels) true.
func (e *LabelsError) Unwrap() error { return ErrLabels }

// Hint says what to write instead.
func (e *LabelsError) Hint() string { return e.Advice }

// ParseLabels reads a labels file: one YAML mapping from label to value, each a Kubernetes label. It is
// strict: what is not such a label is an error, so that a typing error never selects another policy.
func ParseLabels(file string, data []byte) (map[string]string, error) {
	p := labelsParser{file: file}
	if len(data) > maxBytes {
		return nil, p.fail(nil, fmt.Sprintf("larger than %d bytes", maxBytes), "")
	}
	document, err := p.document(data)
	if err != nil || document == nil {
		return nil, err
	}
	if document.Kind != yaml.MappingNode {
		return nil, p.fail(document, "not a mapping", "write one label a line, as in  role: web")
	}
	if len(document.Content)/2 > maxLabels {
		return nil, p.fail(document, fmt.Sprintf("more than %d labels", maxLabels), "")
	}
	labels := make(map[string]string, len(document.Content)/2)
	for i := 0; i+1 < len(document.Content); i += 2 {
		if err := p.label(labels, document.Content[i], document.Content[i+1]); err != nil {
			return nil, err
		}
	}
	return labels, nil
}

type labelsParser struct{ file string }

func (p labelsParser) fail(at *yaml.Node, reason, advice string) error {
	e := &LabelsError{File: p.file, Reason: reason, Advice: advice}
	if at != nil {
		e.Line, e.Column = at.Line, at.Column
	}
	return e
}

// document returns the one document of the file, nil when there is nothing in it.
func (p labelsParser) document(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, p.fail(nil, "not YAML: "+strings.TrimPrefix(err.Error(), "yaml: "), "")
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, p.fail(nil, "more than one document", "remove what follows the line ---")
	}
	if len(document.Content) != 1 || document.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return document.Content[0], nil
}

// label adds one label.
func (p labelsParser) label(labels map[string]string, key, value *yaml.Node) error {
	for _, n := range [...]*yaml.Node{key, value} {
		if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Tag == "!!null" {
			return p.fail(n, "not a plain string", "write  label: value")
		}
		if n.Tag != "!!str" {
			return p.fail(n, fmt.Sprintf("%s is not a string to YAML", n.Value), fmt.Sprintf("write it in quotes: %q", n.Value))
		}
	}
	if reason := badLabelKey(key.Value); reason != "" {
		return p.fail(key, fmt.Sprintf("label %q %s", key.Value, reason), "labels are written as Kubernetes writes them: [prefix/]name")
	}
	if v := value.Value; v != "" && (len(v) > maxLabelName || !labelName.MatchString(v)) {
		return p.fail(value, fmt.Sprintf("value %q of label %s is not a label value", v, key.Value),
			"at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
	}
	if _, twice := labels[key.Value]; twice {
		return p.fail(key, fmt.Sprintf("label %q stands twice", key.Value), "remove one of them")
	}
	labels[key.Value] = value.Value
	return nil
}

// badLabelKey says what is wrong with a label's key, or "".
func badLabelKey(key string) string {
	prefix, name, ok := strings.Cut(key, "/")
	if !ok {
		prefix, name = "", key
	}
	switch {
	case ok && (len(prefix) > maxKeyPrefix || !labelPrefix.MatchString(prefix)):
		return "has a prefix that is not a DNS name in lower case"
	case len(name) > maxLabelName:
		return fmt.Sprintf("has a name of more than %d bytes", maxLabelName)
	case !labelName.MatchString(name):
		return "has a name with other characters than letters, digits, '-', '_' and '.', or that does not begin and end with a letter or digit"
	}
	return ""
}
