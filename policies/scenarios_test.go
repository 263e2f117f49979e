// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const scenarioDir = "../test/conformance/scenarios"

// scenario is the part of a conformance scenario that concerns parsing.
type scenario struct {
	ID          string      `yaml:"id"`
	Policies    []yaml.Node `yaml:"policies"`
	Document    string      `yaml:"document"`
	PadTo       int         `yaml:"pad_to"`
	ExpectError string      `yaml:"expect_error"`
	Steps       []struct {
		Apply       []yaml.Node `yaml:"apply"`
		ExpectError string      `yaml:"expect_error"`
	} `yaml:"steps"`
}

// release is one set of documents and the error that must come of it.
type release struct {
	name, text, expectError string
}

func (s scenario) releases(tb testing.TB) []release {
	tb.Helper()
	text := s.Document
	if text == "" {
		text = documents(tb, s.Policies)
	}
	if missing := s.PadTo - len(text); missing > 0 {
		text += strings.Repeat(strings.Repeat("#", 99)+"\n", missing/100+1)[:missing]
	}
	list := []release{{s.ID, text, s.ExpectError}}
	for _, step := range s.Steps {
		if step.Apply != nil {
			list = append(list, release{s.ID + " apply", documents(tb, step.Apply), step.ExpectError})
		}
	}
	return list
}

func documents(tb testing.TB, nodes []yaml.Node) string {
	tb.Helper()
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	for i := range nodes {
		if err := e.Encode(&nodes[i]); err != nil {
			tb.Fatal(err)
		}
	}
	return b.String()
}

func scenarioReleases(tb testing.TB) []release {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(scenarioDir, "*.yaml"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no scenarios in %s: %v", scenarioDir, err)
	}
	var list []release
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var s scenario
		if err := yaml.Unmarshal(data, &s); err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
		list = append(list, s.releases(tb)...)
	}
	return list
}

func TestScenariosParse(t *testing.T) {
	t.Parallel()
	refused := 0
	for _, r := range scenarioReleases(t) {
		list, err := ParseDocument("policy.yaml", []byte(r.text))
		switch {
		case r.expectError == "" && err != nil:
			t.Errorf("%s: %v", r.name, err)
		case r.expectError == "" && len(list) == 0 && strings.TrimSpace(r.text) != "":
			t.Errorf("%s: no policies", r.name)
		case r.expectError != "" && (err == nil || !regexp.MustCompile(r.expectError).MatchString(err.Error())):
			t.Errorf("%s: %v does not match %s", r.name, err, r.expectError)
		case r.expectError != "":
			refused++
			t.Logf("%s: %v", r.name, err)
		}
	}
	if refused < 13 {
		t.Errorf("only %d documents were refused", refused)
	}
}
