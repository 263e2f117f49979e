// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command muster is what people and CI run: it checks, publishes and approves releases, and asks the
// agent on this host what it enforces.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends what is under way; another one, should that hang, ends the process.
	context.AfterFunc(ctx, stop)
	code := run(withProgress(ctx, os.Stderr), os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitInterrupted is what a shell expects of a program that a signal ended.
const exitInterrupted = 130

// run runs one verb and answers the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &faithful{to: stdout}
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = hinted("", "output: %w", out.err)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		// What a library makes of its context's end explains nothing.
		err = hinted("nothing is half done: run it again, and what was done already is found done", "interrupted")
		printError(stderr, err)
		return exitInterrupted
	}
	printError(stderr, err)
	return 1
}

// printError says what happened and what can be done about it.
func printError(stderr io.Writer, err error) {
	// An error may quote a server or a repository; neither writes on this terminal.
	fmt.Fprintf(stderr, "muster: error: %s\n", printableText(err.Error()))
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) && hinter.Hint() != "" {
		fmt.Fprintf(stderr, "muster: hint: %s\n", printableText(hinter.Hint()))
	}
}

// faithful remembers that something could not be written: output that a full disk cut short is no success.
type faithful struct {
	to  io.Writer
	err error
}

func (w *faithful) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.to.Write(b)
	w.err = err
	return n, err
}
