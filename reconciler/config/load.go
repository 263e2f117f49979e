// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ErrConfig is the kind of every error about the configuration's content.
var ErrConfig = errors.New("configuration refused")

// maxSize is far above any real file and keeps an endless one out of memory.
const maxSize = 1 << 20

var durationType = reflect.TypeFor[time.Duration]()

// Problem is one thing that is wrong, and where.
type Problem struct {
	File         string
	Line, Column int
	Message      string
	Advice       string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Error is every Problem of one file.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrConfig) true.
func (e *Error) Unwrap() error { return ErrConfig }

// Hint is the advice for the first problem that has one.
func (e *Error) Hint() string {
	for _, p := range e.Problems {
		if p.Advice != "" {
			return p.Advice
		}
	}
	return ""
}

// Load reads, parses and validates the file.
func Load(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, content)
}

// Parse parses and validates content; name is used in positions.
func Parse(name string, content []byte) (*Config, error) {
	if len(content) > maxSize {
		return nil, &Error{[]Problem{{File: name, Line: 1, Column: 1, Message: "larger than 1 MiB"}}}
	}
	cfg := Default()
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Error{[]Problem{{File: name, Line: 1, Column: 1, Message: "empty", Advice: "at least source.url is needed"}}}
		}
		return nil, &Error{[]Problem{yamlPosition(name, err)}}
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &Error{[]Problem{{File: name, Line: max(second.Line, 1), Column: 1, Message: "more than one document", Advice: "keep one; remove the line ---"}}}
	}
	problems := decodeStrict(name, document.Content[0], reflect.ValueOf(&cfg).Elem(), "")
	if len(problems) == 0 {
		problems = validate(name, document.Content[0], &cfg)
	}
	if len(problems) > 0 {
		return nil, &Error{problems}
	}
	return &cfg, nil
}

// Marshal writes cfg as a file that Load reads back to the same value; what equals the default is left out.
func Marshal(cfg Config) ([]byte, error) {
	def := Default()
	node, err := difference(reflect.ValueOf(cfg), reflect.ValueOf(def))
	if err != nil {
		return nil, err
	}
	if node == nil {
		node = &yaml.Node{Kind: yaml.MappingNode}
	}
	var out bytes.Buffer
	out.WriteString("# musterd's configuration; `musterd --check` says what is wrong with it. Keys: docs/configuration.md\n")
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return out.Bytes(), nil
}

// difference returns the fields of value that are not as in def, nil when there are none.
func difference(value, def reflect.Value) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for i := range value.NumField() {
		if reflect.DeepEqual(value.Field(i).Interface(), def.Field(i).Interface()) {
			continue
		}
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("yaml"), ",")
		child := &yaml.Node{}
		var err error
		if value.Field(i).Kind() == reflect.Struct {
			child, err = difference(value.Field(i), def.Field(i))
		} else {
			err = child.Encode(value.Field(i).Interface())
		}
		if err != nil {
			return nil, fmt.Errorf("configuration: %s: %w", name, err)
		}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, child)
	}
	if len(node.Content) == 0 {
		return nil, nil
	}
	return node, nil
}
