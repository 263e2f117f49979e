// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command run is `make bench`: it measures in the lab, prints the table, and writes everything as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/muster-fleet/muster/test/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	kernel := flag.String("kernel", "6.12", "the lab's kernel line")
	rounds := flag.Int("rounds", 6, "how often each case has its turn")
	cases := flag.String("cases", strings.Join(bench.Cases(), ","), "what to compare; the first must be none")
	ops := flag.String("ops", "", "rows to measure, by name; empty means all")
	out := flag.String("json", "dist/bench.json", "where the samples and the summary go")
	flag.Parse()
	o := bench.Options{
		Kernel: *kernel, Rounds: *rounds, Cases: strings.Split(*cases, ","), Operations: bench.Names(*ops),
		Scale: 1, Progress: os.Stderr,
	}
	if err := run(ctx, o, *out); err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o bench.Options, out string) error {
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	report.Summarize()
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return report.Table(os.Stdout)
}
