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
	r.Loads = []bench.Load{{Case: "muster-100", Rules: 100, Attach: 1000, Compile: 1234567, Publish: 7, Change: 9, Memory: 2500000}}
	r.Summarize()
	var b strings.Builder
	if err := r.Table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| operation | no agent (total) | Muster, 100 rules |",
		"| open + close, file in no rule, warm | 110 | +5 (±0) |",
		"| Muster, 100 rules | 100 | 1,000 | 1,234,567 | 7 | 9 | 2.50 MB |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	if c, ok := r.Find("open", "muster-100"); !ok || c.AddedWall != 7 {
		t.Errorf("got %+v", c)
	}
}

func TestBars(t *testing.T) {
	t.Parallel()
	r := bench.Report{Rounds: 1, Elsewhere: map[string]float64{"rss-1": 40, "apply-100": 16.5}}
	r.Samples = []bench.Sample{
		{Case: "none", Op: "open", N: 1, CPU: 5000, Wall: 5000},
		{Case: "empty", Op: "open", N: 1, CPU: 5200, Wall: 5200},
		{Case: "muster-0", Op: "open", N: 1, CPU: 5361, Wall: 5361},
		{Case: "muster-1", Op: "open", N: 1, CPU: 5500, Wall: 5500},
		{Case: "muster-10000", Op: "open", N: 1, CPU: 5550, Wall: 5700},
	}
	r.Loads = []bench.Load{
		{Case: "muster-0", Attach: 1e9}, {Case: "muster-1", Rules: 2, Publish: 15e8}, {Case: "muster-10000", Rules: 10_000, Memory: 31e6},
	}
	r.Swaps = &bench.SwapResult{Operations: bench.SwapOperations, Swaps: 99}
	r.Summarize()
	rows := func() string {
		var b strings.Builder
		if err := r.Bars(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, want := range []string{
		"warm, 1 to 10,000 rules | 550 instructions | 550 instructions | met |",
		"| 1.10 times | 1.10 times | met |",
		"all else that its CPU does meanwhile | 700 instructions | 600 instructions | **missed by 100** (17 %) |",
		"1.8 times the empty programs | 361 instructions | 360 instructions | **missed by 1** (0 %) |",
		"| kernel memory, 10,000 rules | 31 MB | 32 MB | met |",
		"| 2.50 G instructions | 2.00 G instructions | **missed by 0.50 G** (25 %) |",
		"| apply to enforced, 100 rules | 16.50 ms | 15 ms | **missed by 1.50** (10 %) |",
		"100 swaps | not measured | 0 |  |",
	} {
		if got := rows(); !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	r.Swaps = &bench.SwapResult{Operations: bench.SwapOperations, Swaps: 100, Leaked: 1}
	if got := rows(); !strings.Contains(got, "100 swaps | 1 | 0 | **missed** |") {
		t.Errorf("an operation that went wrong is not told:\n%s", got)
	}
}

func TestInsert(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- from here: make bench -->\n", "<!-- to here: make bench -->\n"
	got, err := bench.Insert("a\n"+begin+"old\n"+end+"b\n", "new\n")
	if err != nil || got != "a\n"+begin+"new\n"+end+"b\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := bench.Insert("a\n"+end+begin, "new\n"); err == nil {
		t.Error("a page without a place was written")
	}
}
