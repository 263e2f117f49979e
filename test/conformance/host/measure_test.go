// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package host

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/vm"
)

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
				Each: func(l Line) {
					t.Log(l.Text)
					verdicts[l.ID] = l
				},
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
