// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/vm"
)

// turn is a scenario, which of its expectations is turned round, and what the runner must then say.
type turn struct{ scenario, what, says string }

// turns are a short scenario of each family that is promised.
var turns = []turn{
	{"P03", "1.expect", "step 1: exec /opt/t/bin/tool: expected denied, got ok"},
	{"R17", "1.event", "step 1: read /opt/t/secret.txt: expected no event, got [{PolicyName: r17-"},
	{"L13", "4.expect", "step 4: exec /opt/t/bin/tool: expected ok, got denied"},
	{"X01", "error", "step 0: the release was refused with "},
}

// TestRunnerFails carries scenarios out in the lab, as they are and with an expectation turned round: as they are
// they pass, turned round they fail, and for what was really seen. All scenarios and all of their expectations are
// TestScenarios'.
func TestRunnerFails(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	kernels := vm.Kernels()
	var log bytes.Buffer
	lines := map[string]Line{}
	o := Options{
		Scenarios: "../scenarios", Backends: []string{"bpflsm"}, Kernel: kernels[len(kernels)-1], Invert: map[string]bool{},
		Take: func(s *conformance.Scenario) bool {
			return slices.ContainsFunc(turns, func(c turn) bool { return c.scenario == s.ID })
		},
		Out: t.Output(), Log: &log,
		Each: func(l Line) { lines[l.ID] = l },
	}
	for _, c := range turns {
		o.Invert[c.scenario+"~"+c.what] = true
	}
	summary, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if want := (conformance.Summary{Passed: len(turns), Failed: len(turns)}); summary != want {
		t.Errorf("%v, wanted %v\n%s", summary, want, &log)
	}
	for _, c := range turns {
		if l := lines[c.scenario]; l.Verdict != "pass" {
			t.Errorf("%s: %q", c.scenario, l.Text)
		}
		if l := lines[c.scenario+"~"+c.what]; l.Verdict != "FAIL" || !strings.Contains(l.Text, c.says) {
			t.Errorf("%s~%s: %q, wanted a failure that says %q", c.scenario, c.what, l.Text, c.says)
		}
	}
}
