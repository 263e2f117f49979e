// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"math"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/test/bench"
	"github.com/muster-fleet/muster/test/vm"
)

// TestMethod measures what is known: empty programs cost nothing where they are not attached and one trampoline where
// they are, and two rounds agree. If it fails, no number of `make bench` can be believed.
func TestMethod(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	report, err := bench.Run(t.Context(), bench.Options{
		Kernel: "6.12", Rounds: 2, Cases: []string{bench.Baseline, bench.Empty}, Scale: 5, Progress: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	report.Summarize()
	check := func(op string, low, high float64) {
		t.Helper()
		c, ok := report.Find(op, bench.Empty)
		if !ok || c.Added < low || c.Added > high || c.Spread > 50 {
			t.Errorf("%s: empty programs add %.0f, spread %.0f, not %.0f to %.0f", op, c.Added, c.Spread, low, high)
		}
	}
	check("getpid", -5, 5)
	check("stat", -50, 50)
	check("open", 120, 320)
	check("open-60", 120, 320)
	if c, _ := report.Find("getpid", bench.Baseline); math.Abs(c.Total-317) > 60 {
		t.Errorf("getpid costs %.0f instructions", c.Total)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	r := bench.Report{Kernel: "k", LSM: "bpf", Rounds: 2}
	for round, cpu := range []uint64{1000, 1200} {
		r.Samples = append(
			r.Samples,
			bench.Sample{Case: "none", Round: round, Op: "open", N: 10, CPU: cpu, Wall: cpu},
			bench.Sample{Case: "muster-100", Round: round, Op: "open", N: 10, CPU: cpu + 50, Wall: cpu + 70},
		)
	}
	r.Loads = []bench.Load{{Case: "muster-100", Rules: 100, Attach: 1000, Compile: 1234567, Publish: 7, Memory: 2500000}}
	r.Summarize()
	var b strings.Builder
	if err := r.Table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| operation | no agent (total) | Muster, 100 rules |",
		"| open + close, file in no rule, warm | 110 | +5 (±0) |",
		"| Muster, 100 rules | 100 | 1,000 | 1,234,567 | 7 | 2.50 MB |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	if c, ok := r.Find("open", "muster-100"); !ok || c.AddedWall != 7 {
		t.Errorf("got %+v", c)
	}
}
