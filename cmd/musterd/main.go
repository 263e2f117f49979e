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
	"runtime/debug"
	"syscall"

	"github.com/muster-fleet/muster/reconciler/config"
)

// version is set by the linker.
var version = "dev"

// gcPercent trades a little of the CPU time of large releases for a third of their memory; GOGC overrides it.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil {
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
	flags.SetOutput(io.Discard) // what is wrong with the arguments is said once, by main
	path := flags.String("config", config.DefaultPath, "configuration `file`")
	check := flags.Bool("check", false, "say what is wrong with the configuration and what it names, and exit")
	show := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printUsage(stdout, flags)
		return nil
	case err != nil:
		return &usageError{err}
	}
	switch {
	case flags.NArg() > 0:
		return &usageError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	case *show:
		fmt.Fprintf(stdout, "musterd %s\n", version)
		return nil
	case *check:
		return checkConfig(*path, stdout)
	}
	return serve(ctx, *path, stdout, stderr)
}

const usage = `musterd keeps this host's kernel enforcing what its fleet's signed releases say.

It is started by the service manager. What it puts into the kernel stays when it ends. SIGHUP reads the
configuration, the labels and the trust files again; SIGTERM and SIGINT end it.

Examples:
  musterd --check                             what is wrong with /etc/muster/musterd.yaml, and what it names
  musterd --config ./musterd.yaml             run with another configuration
  systemctl reload musterd                    take up an edited configuration

Flags:
`

func printUsage(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprint(w, usage)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// usageError is a call that is not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *usageError) Unwrap() error { return e.err }

// Hint is where the flags are explained.
func (e *usageError) Hint() string { return "musterd --help" }
