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

// Invert returns copies of a scenario, each with one expectation turned round: where the scenario passes,
// every copy must fail. The copies' ids say what was turned.
func Invert(s *Scenario) []*Scenario {
	var out []*Scenario
	turned := func(what string, turn func(*Scenario)) {
		c := *s
		c.ID = s.ID + "~" + what
		c.Steps = slices.Clone(s.Steps)
		turn(&c)
		out = append(out, &c)
	}
	if s.ExpectError.Given() {
		turned("error", func(c *Scenario) { c.ExpectError = impossible })
	} else {
		turned("refused", func(c *Scenario) { c.ExpectError = impossible })
	}
	turned("gap", func(c *Scenario) { c.ExpectGap = impossible })
	for i := range s.Steps {
		invertStep(&s.Steps[i], func(what string, turn func(*Step)) {
			turned(fmt.Sprintf("%d.%s", i+1, what), func(c *Scenario) { turn(&c.Steps[i]) })
		})
	}
	return out
}

func invertStep(st *Step, turned func(what string, turn func(*Step))) {
	if st.Apply != nil {
		turned("error", func(t *Step) { t.ExpectError = impossible })
	}
	if !st.Runs() {
		return
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
}

func altered(want map[string]string, name string) map[string]string {
	out := make(map[string]string, len(want))
	maps.Copy(out, want)
	out[name] += " (not this)"
	return out
}
