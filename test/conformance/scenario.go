// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance reads the conformance scenarios and judges what was seen against them.
//
// A scenario is one promise (docs of the format: test/conformance/README.md). This package is pure: it
// parses strictly, checks that every operation exists, matches events and decides what a step's outcome
// means. The guest package carries scenarios out inside a virtual machine; nothing in either looks at a
// scenario's id to decide anything.
package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"

	"go.yaml.in/yaml/v3"
)

// Scenario is one file.
type Scenario struct {
	ID      string  `yaml:"id"`
	Title   string  `yaml:"title"`
	Subject Subject `yaml:"subject"`
	Posture Posture `yaml:"posture"`
	// Policies is nil when Document stands in their place.
	Policies    []yaml.Node `yaml:"policies"`
	Document    string      `yaml:"document"`
	PadTo       int         `yaml:"pad_to"`
	ExpectError Pattern     `yaml:"expect_error"`
	ExpectGap   Pattern     `yaml:"expect_gap"`
	Steps       []Step      `yaml:"steps"`
	// Gaps says, for each backend, the reasons for a gap that are excused here.
	Gaps map[string]Words `yaml:"gaps"`
}

// Subject is where the steps run.
type Subject string

// The subjects.
const (
	Host      Subject = "host"
	Container Subject = "container"
)

// Posture is the default postures; empty means unchanged, and audit at the beginning of a scenario.
type Posture struct {
	File         string `yaml:"file"`
	Network      string `yaml:"network"`
	Capabilities string `yaml:"capabilities"`
}

// Over returns p with what it leaves open taken from base.
func (p Posture) Over(base Posture) Posture {
	for _, f := range []struct{ to, from *string }{
		{&p.File, &base.File}, {&p.Network, &base.Network}, {&p.Capabilities, &base.Capabilities},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	return p
}

// AuditPosture is what every scenario starts from.
func AuditPosture() Posture { return Posture{File: "audit", Network: "audit", Capabilities: "audit"} }

// Step is one step; exactly one of Do, Sh, Apply, Posture and Agent is given.
type Step struct {
	Do      string       `yaml:"do"`
	Sh      string       `yaml:"sh"`
	Apply   *[]yaml.Node `yaml:"apply"`
	Posture *Posture     `yaml:"posture"`
	Agent   Agent        `yaml:"agent"`

	Via    string      `yaml:"via"`
	As     string      `yaml:"as"`
	TTY    bool        `yaml:"tty"`
	Expect Expectation `yaml:"expect"`
	Event  *Events     `yaml:"event"`
	// ExpectError belongs to an apply step: the release must be refused.
	ExpectError Pattern `yaml:"expect_error"`
}

// Expectation is how an operation must end.
type Expectation string

// The expectations.
const (
	OK     Expectation = "ok"
	Denied Expectation = "denied"
)

// Agent is what happens to the agent.
type Agent string

// What happens to the agent.
const (
	Kill    Agent = "kill"
	Restart Agent = "restart"
	Upgrade Agent = "upgrade"
)

// Pattern is a regular expression; the zero value is none.
type Pattern struct{ *regexp.Regexp }

// UnmarshalYAML compiles the expression.
func (p *Pattern) UnmarshalYAML(node *yaml.Node) error {
	re, err := regexp.Compile(node.Value)
	if err != nil || node.Kind != yaml.ScalarNode || node.Value == "" {
		return fmt.Errorf("line %d: %q is no regular expression: %w", node.Line, node.Value, err)
	}
	p.Regexp = re
	return nil
}

// Given tells whether there is a pattern.
func (p Pattern) Given() bool { return p.Regexp != nil }

// Words is one word or a list of them.
type Words []string

// UnmarshalYAML takes a scalar or a sequence.
func (w *Words) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*w = Words{node.Value}
		return nil
	}
	return node.Decode((*[]string)(w))
}

// Events is what must be seen of events: nothing at all, or each of Want.
type Events struct {
	None bool
	Want []map[string]string
}

// UnmarshalYAML takes `none`, a mapping, or a sequence of mappings.
func (e *Events) UnmarshalYAML(node *yaml.Node) error {
	switch {
	case node.Kind == yaml.ScalarNode && node.Value == "none":
		e.None = true
		return nil
	case node.Kind == yaml.MappingNode:
		e.Want = make([]map[string]string, 1)
		return node.Decode(&e.Want[0])
	case node.Kind == yaml.SequenceNode && len(node.Content) > 0:
		return node.Decode(&e.Want)
	default:
		return fmt.Errorf("line %d: event must be none, fields or a list of fields", node.Line)
	}
}

// ErrScenario is the kind of every problem with a scenario's text.
var ErrScenario = errors.New("bad scenario")

// Parse reads one scenario. Unknown keys, operations and values are errors.
func Parse(data []byte) (*Scenario, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var s Scenario
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScenario, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one document", ErrScenario)
	}
	s.Posture = s.Posture.Over(AuditPosture())
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScenario, err)
	}
	return &s, nil
}

// Load reads every *.yaml of a folder, sorted by id.
func Load(dir string) ([]*Scenario, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: no *.yaml in %s", ErrScenario, dir)
	}
	var list []*Scenario
	seen := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading a scenario: %w", err)
		}
		s, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if before, twice := seen[s.ID]; twice {
			return nil, fmt.Errorf("%w: %s: id %s stands in %s as well", ErrScenario, name, s.ID, before)
		}
		seen[s.ID] = name
		list = append(list, s)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, nil
}

// Files returns the release's policy files: the documents as they were written, or Document, padded.
func (s *Scenario) Files() (map[string][]byte, error) {
	if s.Document == "" {
		return PolicyFiles(s.Policies)
	}
	text := []byte(s.Document)
	for left := s.PadTo - len(text); left > 0; left = s.PadTo - len(text) {
		line := bytes.Repeat([]byte("#"), min(left, 80))
		line[len(line)-1] = '\n'
		text = append(text, line...)
	}
	return map[string][]byte{"policies/document.yaml": text}, nil
}

// PolicyFiles renders policy documents as files of a release, one each.
func PolicyFiles(documents []yaml.Node) (map[string][]byte, error) {
	files := map[string][]byte{}
	for i := range documents {
		text, err := yaml.Marshal(&documents[i])
		if err != nil {
			return nil, fmt.Errorf("rendering policy %d: %w", i+1, err)
		}
		files[fmt.Sprintf("policies/%03d.yaml", i+1)] = text
	}
	return files, nil
}
