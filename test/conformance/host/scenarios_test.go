// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package host

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/vm"
)

// rerun picks scenarios that also run as a whole with each expectation turned round: for each kind of
// expectation the shortest scenario that has it.
func rerun(list []*conformance.Scenario) map[string]bool {
	kinds := []func(*conformance.Scenario) bool{
		func(s *conformance.Scenario) bool { return s.ExpectError.Given() },
		func(s *conformance.Scenario) bool { return s.ExpectGap.Given() },
		func(s *conformance.Scenario) bool {
			return slices.ContainsFunc(s.Steps, func(st conformance.Step) bool { return st.Expect == conformance.Denied && st.Event != nil })
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

// TestScenarios carries the promised scenarios out on the lab's kernels. Each must pass, and each of its
// expectations turned round must fail what was seen: a runner that cannot fail proves nothing. On one kernel a
// few run as a whole with an expectation turned round.
func TestScenarios(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	list, promised := load(t)
	kernels := vm.Kernels()
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			o := Options{
				Scenarios: "../scenarios", Backends: []string{"bpflsm"}, Kernel: kernel, Turn: true,
				Take: func(s *conformance.Scenario) bool { return promised[s.ID] },
			}
			if kernel == kernels[len(kernels)-1] {
				o.Invert = rerun(list)
			}
			scenarios(t, o, list)
		})
	}
}

func scenarios(t *testing.T, o Options, list []*conformance.Scenario) {
	t.Helper()
	var log bytes.Buffer
	begin := time.Now()
	verdicts := map[string]string{}
	failed := 0
	o.Out, o.Log = &log, &log
	o.Each = func(l Line) {
		_, turned, _ := strings.Cut(l.ID, "~")
		if turned == "" {
			t.Logf("%6.1f s: %s", time.Since(begin).Seconds(), l.Text)
		}
		switch {
		case turned == "" && l.Verdict != "pass":
			t.Error(l.Text)
		case turned != "" && l.Verdict != "FAIL":
			t.Errorf("turned round, and does not fail: %s", l.Text)
		case turned != "":
			failed++
		}
		verdicts[l.ID] = l.Verdict
	}
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, s := range list {
		for _, c := range append(conformance.Invert(s), s) {
			if verdicts[c.ID] == "" {
				t.Errorf("%s: no verdict", c.ID)
			}
		}
	}
	t.Logf("%d scenarios, %d judgements of an expectation turned round, %s", len(list), failed, time.Since(begin).Round(time.Second))
}
