// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command musterd is the agent: it keeps this host's kernel enforcing what the fleet's signed releases say.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/muster-fleet/muster/reconciler/config"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintf(os.Stderr, "musterd: error: %v\n", err)
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) && hinter.Hint() != "" {
		fmt.Fprintf(os.Stderr, "musterd: hint: %s\n", hinter.Hint())
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("musterd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", config.DefaultPath, "configuration `file`")
	check := flags.Bool("check", false, "say what is wrong with the configuration and what it names, and exit")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return err //nolint:wrapcheck // flag has printed it
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *show:
		fmt.Fprintf(stdout, "musterd %s\n", version)
		return nil
	case *check:
		return checkConfig(*path, stdout)
	}
	return serve(ctx, *path, stdout, stderr)
}
