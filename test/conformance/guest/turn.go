// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"

	"github.com/muster-fleet/muster/test/conformance"
)

// A runner that cannot fail proves nothing. What a scenario saw is therefore judged a second time, against each
// of its expectations turned round: those judgements must all be failures. Only the judging is repeated, not
// the scenario, so that it costs next to nothing; that a whole run fails is shown by conformance.Invert.

// turning collects how the expectations of one scenario fared that were turned round.
type turning map[string]failure // what was turned; why it failed

func (t turning) note(what string, step int, err error) {
	if _, failed := t[what]; !failed && err != nil {
		t[what] = failure{step, err}
	}
}

func (t turning) step(number int, st *conformance.Step, judge func(*conformance.Step) error) {
	if t == nil {
		return
	}
	for _, turned := range conformance.InvertStep(number, st) {
		t.note(turned.What, number, judge(turned.Copy))
	}
}

func (t turning) entry(s *conformance.Scenario, judge func(*conformance.Scenario) error) {
	if t == nil {
		return
	}
	for _, turned := range conformance.InvertEntry(s) {
		t.note(turned.What, 0, judge(turned.Copy))
	}
}

// outcomes has one for each expectation of the scenario; one that did not fail has passed.
func (t turning) outcomes(s *conformance.Scenario, backend string) []conformance.Outcome {
	var out []conformance.Outcome
	for _, c := range conformance.Invert(s) {
		o := conformance.Outcome{ID: c.ID, Backend: backend}
		if failed, did := t[c.ID[len(s.ID)+1:]]; did {
			o.Step, o.Failure = failed.step, failed.err.Error()
		}
		out = append(out, o)
	}
	return out
}

// RunTurned carries out one scenario and judges it a second time, turned round. The second list is empty when
// the scenario did not pass.
func (r *Runner) RunTurned(ctx context.Context, s *conformance.Scenario) (conformance.Outcome, []conformance.Outcome) {
	turned := turning{}
	out := r.run(ctx, s, turned)
	if out.Failure != "" || out.Gap != "" {
		return out, nil
	}
	return out, turned.outcomes(s, r.config.Backend)
}
