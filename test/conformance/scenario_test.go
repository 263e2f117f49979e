// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = `id: T01
title: a title
subject: host
policies: []
`

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	step := func(text string) string { return good + "steps:\n  - " + text + "\n" }
	cases := map[string]string{
		"unknown key":           good + "stpes: []\n",
		"unknown step key":      step("{do: netlink, expect: ok, events: none}"),
		"unknown operation":     step("{do: raed /x, expect: ok}"),
		"relative path":         step("{do: read x, expect: ok}"),
		"too many arguments":    step("{do: read /x /y, expect: ok}"),
		"unknown socket family": step("{do: socket inet7 stream, expect: ok}"),
		"bad expectation":       step("{do: netlink, expect: yes}"),
		"missing expectation":   step("{do: netlink}"),
		"unknown user":          step("{do: netlink, expect: ok, as: user2}"),
		"two things at once":    step("{do: netlink, sh: 'true', expect: ok}"),
		"event beside apply":    step("{apply: [], event: none}"),
		"unknown agent verb":    step("{agent: pause}"),
		"event word":            step("{do: netlink, expect: ok, event: some}"),
		"bad pattern":           good + "expect_error: '('\n",
		"bad posture":           step("{posture: {file: deny}}"),
		"unknown posture class": step("{posture: {process: block}}"),
		"unknown gap reason":    good + "steps: [{do: netlink, expect: ok}]\ngaps: {selinux: because}\n",
		"unknown gap backend":   good + "steps: [{do: netlink, expect: ok}]\ngaps: {tomoyo: pattern}\n",
		"two documents":         good + "expect_error: x\n---\nid: T02\n",
		"duplicate key":         good + "id: T02\nexpect_error: x\n",
		"policies and document": good + "document: x\nexpect_error: x\n",
		"pad without document":  good + "pad_to: 3\nexpect_error: x\n",
		"nothing expected":      good,
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse([]byte(text)); !errors.Is(err, ErrScenario) {
				t.Errorf("got %v, want an error of kind ErrScenario", err)
			}
		})
	}
}

func TestParsePadsDocuments(t *testing.T) {
	t.Parallel()
	s, err := Parse([]byte("id: T01\ntitle: t\nsubject: host\ndocument: |\n  a: 1\npad_to: 1000\nexpect_error: x\n"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	text := string(files["policies/document.yaml"])
	if len(text) != 1000 || !strings.HasPrefix(text, "a: 1\n") {
		t.Fatalf("%d bytes: %.20q", len(text), text)
	}
	for i, line := range strings.Split(text, "\n")[1:] {
		if line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("line %d is no comment: %q", i+2, line)
		}
	}
}

// TestScenariosParse: every scenario of the project can be executed as far as its text goes.
func TestScenariosParse(t *testing.T) {
	t.Parallel()
	list, err := Load("scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if _, err := s.Files(); err != nil {
			t.Errorf("%s: %v", s.ID, err)
		}
	}
}

// TestOperationsAreTheProbes: the table here and the tables of the probe name the same operations.
func TestOperationsAreTheProbes(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob("probe/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of the probe: %v", err)
	}
	var all strings.Builder
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for name := range operations {
		if !strings.Contains(all.String(), `{ "`+name+`", `) && !strings.Contains(all.String(), `{"`+name+`", `) {
			t.Errorf("the probe has no operation %s", name)
		}
	}
}

func mustParse(t *testing.T, text string) *Scenario {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestJudge(t *testing.T) {
	t.Parallel()
	block := Event{"PolicyName": "p", "Action": "Block"}
	audit := Event{"PolicyName": "q", "Action": "Audit"}
	cases := []struct {
		name, step string
		code       int
		own, left  []Event
		fails      bool
	}{
		{"as expected", "{do: netlink, expect: ok}", 0, nil, nil, false},
		{"denied instead", "{do: netlink, expect: ok}", 13, nil, nil, true},
		{"neither", "{do: netlink, expect: denied}", 4, nil, nil, true},
		{"permitted instead", "{do: netlink, expect: denied}", 0, nil, nil, true},
		{"found", "{do: netlink, expect: denied, event: {PolicyName: p}}", 13, []Event{block}, nil, false},
		{"empty is absent", "{do: netlink, expect: denied, event: {PolicyName: p, Severity: ''}}", 13, []Event{block}, nil, false},
		{"other field", "{do: netlink, expect: denied, event: {PolicyName: p, Action: Audit}}", 13, []Event{block}, nil, true},
		{"none and none", "{do: netlink, expect: ok, event: none}", 0, nil, nil, false},
		{"none but one", "{do: netlink, expect: ok, event: none}", 0, []Event{block}, nil, true},
		{"none of its own", "{do: netlink, expect: ok, event: none}", 0, nil, []Event{block}, false},
		{"left behind", "{do: netlink, expect: ok, event: {PolicyName: p}}", 0, nil, []Event{block}, false},
		{"list", "{do: netlink, expect: denied, event: [{PolicyName: p}, {PolicyName: q}]}", 13, []Event{audit, block}, nil, false},
		{"half the list", "{do: netlink, expect: denied, event: [{PolicyName: p}, {PolicyName: q}]}", 13, []Event{block}, nil, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			st := &mustParse(t, good+"steps: ["+c.step+"]\n").Steps[0]
			err := errors.Join(st.JudgeExit(c.code, ""), st.JudgeEvents(c.own, c.left))
			if (err != nil) != c.fails {
				t.Errorf("fails %v: %v", c.fails, err)
			}
		})
	}
}

func TestJudgeGaps(t *testing.T) {
	t.Parallel()
	pattern := Gap{Policy: "KubeArmorHostPolicy/p", Rule: 2, Reason: "pattern", Detail: "no patterns here"}
	other := Gap{Policy: "KubeArmorHostPolicy/p", Rule: 3, Reason: "class", Detail: "network"}
	plain := mustParse(t, good+"steps: [{do: netlink, expect: ok}]\ngaps: {selinux: pattern}\n")
	wants := mustParse(t, good+"expect_gap: '(?i)NETWORK'\n")
	if excused, err := plain.JudgeGaps("selinux", []Gap{pattern}); err != nil || len(excused) != 1 {
		t.Errorf("excused %v, %v", excused, err)
	}
	if _, err := plain.JudgeGaps("bpflsm", []Gap{pattern}); err == nil {
		t.Error("a gap on another backend is excused")
	}
	if _, err := wants.JudgeGaps("bpflsm", nil); err == nil {
		t.Error("an expected gap was not missed")
	}
	if excused, err := wants.JudgeGaps("bpflsm", []Gap{other}); err != nil || len(excused) != 0 {
		t.Errorf("excused %v, %v", excused, err)
	}
}

// TestInvertTurnsEverything: what passes fails when any expectation is turned round, whatever was seen.
func TestInvertTurnsEverything(t *testing.T) {
	t.Parallel()
	s := mustParse(t, good+"steps: [{do: netlink, expect: denied, event: [{PolicyName: p, Action: Block}, {PolicyName: q}]}, {do: netlink, expect: ok, event: none}]\n")
	seen := [][]Event{{{"PolicyName": "p", "Action": "Block"}, {"PolicyName": "q"}}, nil}
	codes := []int{13, 0}
	judge := func(s *Scenario) error {
		_, gaps := s.JudgeGaps("bpflsm", nil)
		errs := []error{JudgeRefusal(s.ExpectError, ""), gaps}
		for i := range s.Steps {
			errs = append(errs, s.Steps[i].JudgeExit(codes[i], ""), s.Steps[i].JudgeEvents(seen[i], nil))
		}
		return errors.Join(errs...)
	}
	if err := judge(s); err != nil {
		t.Fatalf("the scenario itself: %v", err)
	}
	turned := Invert(s)
	if len(turned) != 9 { // refused, gap; expect, event, three fields; expect, event
		t.Errorf("%d inversions", len(turned))
	}
	for _, c := range turned {
		if judge(c) == nil {
			t.Errorf("%s passes", c.ID)
		}
	}
}
