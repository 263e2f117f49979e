// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton_test

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/enforce/automaton"
)

func BenchmarkCompile(b *testing.B) {
	for _, kind := range []string{"exact", "directories", "mixed"} {
		for _, count := range []int{1_000, 10_000} {
			matchers := realistic(kind, count)
			b.Run(fmt.Sprintf("%s/%d", kind, count), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					dfas, excluded := automaton.Compile(matchers, automaton.Options{})
					states := 0
					for _, d := range dfas {
						states += len(d.States)
					}
					b.ReportMetric(float64(states), "states")
					b.ReportMetric(float64(len(dfas)), "automata")
					b.ReportMetric(float64(len(excluded)), "excluded")
				}
			})
		}
	}
}

// realistic makes paths of some forty bytes as they occur.
func realistic(kind string, count int) []automaton.Matcher {
	matchers := make([]automaton.Matcher, count)
	for i := range matchers {
		m := automaton.Matcher{Index: i, Kind: automaton.Exact, Text: fmt.Sprintf("/srv/application-%03d/lib/module-%05d.so", i%97, i*7919%100000)}
		switch {
		case kind == "directories" || kind == "mixed" && i%4 == 1:
			m.Kind, m.Recursive = automaton.Directory, i%3 != 0
			m.Text = fmt.Sprintf("/srv/application-%03d/data-%05d/", i%97, i)
		case kind == "mixed" && i%40 == 2:
			m.Kind, m.Text = automaton.ExecName, fmt.Sprintf("tool-%d", i)
		case kind == "mixed" && i%20 == 3:
			m.Kind, m.Text = automaton.Pattern, fmt.Sprintf("/var/log/service-%d/*.log.[0-9]", i)
		case kind == "mixed" && i%200 == 5:
			m.Kind, m.Text = automaton.Pattern, fmt.Sprintf("/home/**/.config/app-%d/**", i)
		}
		matchers[i] = m
	}
	return matchers
}
