// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command run is `make bench`: it measures in the lab, prints the table, and writes everything as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/test/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	kernel := flag.String("kernel", "6.12", "the lab's kernel line")
	rounds := flag.Int("rounds", 2, "how often each case has its turn")
	cases := flag.String("cases", strings.Join(bench.Cases(), ","), "what to compare; the first must be none")
	ops := flag.String("ops", "", "rows to measure, by name; empty means all")
	out := flag.String("json", "dist/bench.json", "where the samples and the summary go")
	page := flag.String("page", "docs/performance.md", "the page that has the table, written when everything is measured")
	parts := flag.String("parts", everything, "what to measure; of the others the results of the run before are kept")
	flag.Parse()
	o := bench.Options{
		Kernel: *kernel, Rounds: *rounds, Cases: strings.Split(*cases, ","), Operations: bench.Names(*ops),
		Scale: 1, Progress: os.Stderr,
	}
	if *ops != "" || *cases != strings.Join(bench.Cases(), ",") {
		*page = ""
	}
	if err := run(ctx, o, bench.Names(*parts), *out, *page); err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

const everything = bench.PartKernel + "," + bench.PartApply + "," + bench.PartAgent

func run(ctx context.Context, o bench.Options, parts []string, out, page string) error {
	report, err := measure(ctx, o, parts, out)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, append(b, '\n'), 0o644)); err != nil {
		return err
	}
	return publish(report, page)
}

// measure measures the parts; the others are what was written to out before.
func measure(ctx context.Context, o bench.Options, parts []string, out string) (*bench.Report, error) {
	report := &bench.Report{}
	before, err := os.ReadFile(out)
	if err == nil && strings.Join(parts, ",") != everything {
		err = json.Unmarshal(before, report)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if slices.Contains(parts, bench.PartKernel) {
		elsewhere := report.Elsewhere
		if report, err = bench.Run(ctx, o); err != nil {
			return nil, err
		}
		report.Elsewhere = elsewhere
	}
	report.Summarize()
	return report, report.Others(ctx, o.Kernel, parts, os.Stderr)
}

// publish prints the tables, and writes them into the page if there is one.
func publish(report *bench.Report, page string) error {
	var text strings.Builder
	err := report.Bars(&text)
	text.WriteString("\n")
	if err = errors.Join(err, report.Table(&text)); err != nil {
		return err
	}
	fmt.Print(text.String())
	if page == "" {
		return nil
	}
	before, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	after, err := bench.Insert(string(before), text.String())
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(after), 0o644)
}
