// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command conformance runs a folder of conformance scenarios on the lab's kernels and prints one line for
// each scenario and backend, then the counts. It exits 0 only when nothing failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/conformance/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: error: %v\n", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("scenarios failed")

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	scenarios := flags.String("scenarios", "test/conformance/scenarios", "`folder` of scenarios")
	backends := flags.String("backends", "bpflsm", "`names` of backends, with commas between")
	kernel := flags.String("kernel", "6.12", "`line` of the kernel")
	only := flags.String("run", "", "`pattern` of the ids to run")
	verbose := flags.Bool("v", false, "show the machine's console and the agent's log of failures")
	if err := flags.Parse(args); err != nil {
		return err
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	options := host.Options{
		Scenarios: *scenarios, Backends: strings.Split(*backends, ","), Kernel: *kernel,
		Take: func(s *conformance.Scenario) bool { return filter.MatchString(s.ID) },
		Out:  os.Stdout, Log: os.Stderr, Verbose: *verbose,
	}
	summary, err := host.Run(ctx, options)
	if err != nil {
		return err
	}
	if summary.Failed > 0 {
		return errFailed
	}
	return nil
}
