// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/vm"
)

// supported tells whether this version promises a scenario: on the host, in the families of policies,
// ranks, life cycle and mistakes, with process and file rules only and without pts and allowedArgs.
func supported(t *testing.T, s *conformance.Scenario) bool {
	t.Helper()
	if s.Subject != conformance.Host || !strings.Contains("PRLX", s.ID[:1]) {
		return false
	}
	documents := slices.Clone(s.Policies)
	for _, st := range s.Steps {
		if st.Apply != nil {
			documents = append(documents, *st.Apply...)
		}
	}
	texts := []string{s.Document}
	for i := range documents {
		text, err := yaml.Marshal(&documents[i])
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, key := range []string{"network", "capabilities", "syscalls", "presets", "egress", "ingress", "pts", "allowedArgs"} {
		for _, text := range texts {
			if strings.Contains(text, key+":") {
				return false
			}
		}
	}
	return true
}

// turnable picks scenarios whose expectations are turned round: for each kind of expectation the shortest
// scenario that has it, and one that denies and names events.
func turnable(list []*conformance.Scenario) map[string]bool {
	kinds := map[string]func(*conformance.Scenario) bool{
		"error": func(s *conformance.Scenario) bool { return s.ExpectError.Given() },
		"gap":   func(s *conformance.Scenario) bool { return s.ExpectGap.Given() },
		"apply": func(s *conformance.Scenario) bool {
			return has(s, func(st conformance.Step) bool { return st.ExpectError.Given() })
		},
		"list": func(s *conformance.Scenario) bool {
			return has(s, func(st conformance.Step) bool { return st.Event != nil && len(st.Event.Want) > 1 })
		},
		"event and none": func(s *conformance.Scenario) bool {
			return has(s, func(st conformance.Step) bool { return st.Event != nil && st.Event.None }) &&
				has(s, func(st conformance.Step) bool { return st.Expect == conformance.Denied && st.Event != nil })
		},
	}
	out := map[string]bool{}
	for _, kind := range kinds {
		var shortest *conformance.Scenario
		for _, s := range list {
			if kind(s) && (shortest == nil || len(s.Steps) < len(shortest.Steps)) {
				shortest = s
			}
		}
		if shortest != nil {
			out[shortest.ID] = true
		}
	}
	return out
}

func has(s *conformance.Scenario, holds func(conformance.Step) bool) bool {
	return slices.ContainsFunc(s.Steps, holds)
}

func load(t *testing.T) (list []*conformance.Scenario, promised map[string]bool) {
	t.Helper()
	all, err := conformance.Load("../scenarios")
	if err != nil {
		t.Fatal(err)
	}
	promised = map[string]bool{}
	for _, s := range all {
		if supported(t, s) {
			promised[s.ID] = true
			list = append(list, s)
		}
	}
	return list, promised
}

// TestPromised: the number that is promised is known, so that nothing drops out unnoticed.
func TestPromised(t *testing.T) {
	t.Parallel()
	if list, _ := load(t); len(list) != 41 {
		for _, s := range list {
			t.Log(s.ID, s.Title)
		}
		t.Errorf("%d scenarios are promised, want 41", len(list))
	}
}

// TestScenarios carries the promised scenarios out on the lab's kernels. Each must pass, and each with an
// expectation turned round must fail: a runner that cannot fail proves nothing.
func TestScenarios(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	list, promised := load(t)
	for _, kernel := range vm.Kernels() {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			verdicts := map[string]Line{}
			_, err := Run(t.Context(), Options{
				Scenarios: "../scenarios", Backends: []string{"bpflsm"}, Kernel: kernel, Out: &log, Log: &log,
				Take:   func(s *conformance.Scenario) bool { return promised[s.ID] },
				Invert: turnable(list),
				Each:   func(l Line) { verdicts[l.ID] = l },
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			turned := 0
			for id, line := range verdicts {
				_, inverted, _ := strings.Cut(id, "~")
				switch {
				case inverted == "" && line.Verdict != "pass":
					t.Error(line.Text)
				case inverted != "" && line.Verdict != "FAIL":
					t.Errorf("turned round, and does not fail: %s", line.Text)
				case inverted != "":
					turned++
				}
			}
			if turned < 20 {
				t.Errorf("only %d scenarios were turned round", turned)
			}
			t.Logf("%d scenarios, %d of them with an expectation turned round", len(verdicts), turned)
		})
	}
}
