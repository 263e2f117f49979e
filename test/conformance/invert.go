// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// impossible matches nothing that anybody reports.
var impossible = Pattern{regexp.MustCompile(`\A\z.`)}

// Turned is a step or a scenario with one expectation turned round: where the original passes it must fail.
type Turned[T any] struct {
	What string // was turned
	Copy *T
}

// Invert returns copies of a scenario, each with one expectation turned round: where the scenario passes,
// every copy must fail. The copies' ids say what was turned.
func Invert(s *Scenario) []*Scenario {
	var out []*Scenario
	turned := func(what string, c Scenario) {
		c.ID = s.ID + "~" + what
		out = append(out, &c)
	}
	for _, t := range InvertEntry(s) {
		turned(t.What, *t.Copy)
	}
	for i := range s.Steps {
		for _, t := range InvertStep(i+1, &s.Steps[i]) {
			c := *s
			c.Steps = slices.Clone(s.Steps)
			c.Steps[i] = *t.Copy
			turned(t.What, c)
		}
	}
	return out
}

// InvertEntry turns what is expected of the policies that a scenario begins with.
func InvertEntry(s *Scenario) []Turned[Scenario] {
	refused, gap := *s, *s
	refused.ExpectError, gap.ExpectGap = impossible, impossible
	what := "refused"
	if s.ExpectError.Given() {
		what = "error"
	}
	return []Turned[Scenario]{{what, &refused}, {"gap", &gap}}
}

// InvertStep turns what is expected of the step with this number.
func InvertStep(number int, st *Step) []Turned[Step] {
	var out []Turned[Step]
	turned := func(what string, turn func(*Step)) {
		c := *st
		turn(&c)
		out = append(out, Turned[Step]{fmt.Sprintf("%d.%s", number, what), &c})
	}
	if st.Apply != nil {
		turned("error", func(t *Step) { t.ExpectError = impossible })
	}
	if !st.Runs() {
		return out
	}
	turned("expect", func(t *Step) {
		if t.Expect == OK {
			t.Expect = Denied
		} else {
			t.Expect = OK
		}
	})
	switch {
	case st.Event == nil:
	case st.Event.None:
		turned("event", func(t *Step) { t.Event = &Events{Want: []map[string]string{{}}} })
	default:
		turned("event", func(t *Step) { t.Event = &Events{None: true} })
		for i, want := range st.Event.Want {
			for name := range want {
				turned(fmt.Sprintf("event-%d-%s", i+1, name), func(t *Step) {
					t.Event = &Events{Want: slices.Clone(st.Event.Want)}
					t.Event.Want[i] = altered(want, name)
				})
			}
		}
	}
	return out
}

func altered(want map[string]string, name string) map[string]string {
	out := make(map[string]string, len(want))
	maps.Copy(out, want)
	out[name] += " (not this)"
	return out
}
