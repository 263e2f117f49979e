// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command conformance-guest is the inner half of the conformance runner. It prints one line for each
// scenario and exits 0 when it could carry all of them out, whatever came of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/conformance/guest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance-guest: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("conformance-guest", flag.ContinueOnError)
	var c guest.Config
	flags.StringVar(&c.Backend, "backend", "bpflsm", "the agent's `backend`")
	flags.StringVar(&c.Helper, "helper", "", "the helper's `program`")
	flags.StringVar(&c.Probe, "probe", "", "the probe's `program`")
	flags.StringVar(&c.Dyntool, "dyntool", "", "the dynamically linked `program`")
	flags.StringVar(&c.Dir, "dir", "/var/lib/muster-conformance", "`folder` for the repositories")
	agents := flags.String("agents", "", "two builds of musterd, with a comma between")
	scenarios := flags.String("scenarios", "", "`folder` of scenarios")
	invert := flags.String("invert", "", "`ids`, with commas between, of scenarios that also run with each expectation turned round, or of one such copy (ID~what)")
	turn := flags.Bool("turn", false, "judge what was seen a second time, against each expectation turned round")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.Agents = strings.Split(*agents, ",")
	list, err := conformance.Load(*scenarios)
	if err != nil {
		return err
	}
	list = withInversions(list, strings.Split(*invert, ","))
	runner, err := guest.NewRunner(ctx, c, time.Now)
	if err != nil {
		return err
	}
	for _, s := range list {
		if !*turn {
			fmt.Fprintln(out, runner.Run(ctx, s))
			continue
		}
		outcome, turned := runner.RunTurned(ctx, s)
		fmt.Fprintln(out, outcome)
		for _, o := range turned {
			fmt.Fprintln(out, o)
		}
	}
	return runner.Close()
}

func withInversions(list []*conformance.Scenario, ids []string) []*conformance.Scenario {
	var out []*conformance.Scenario
	for _, s := range list {
		out = append(out, s)
		for _, c := range conformance.Invert(s) {
			if slices.Contains(ids, s.ID) || slices.Contains(ids, c.ID) {
				out = append(out, c)
			}
		}
	}
	return out
}
