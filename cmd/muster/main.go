// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command muster is what people and CI run: it checks, publishes and approves releases, and asks the
// agent on this host what it enforces.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRootCmd().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	// An error may quote a server or a repository; neither writes on this terminal.
	fmt.Fprintf(os.Stderr, "muster: error: %s\n", printableText(err.Error()))
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) && hinter.Hint() != "" {
		fmt.Fprintf(os.Stderr, "muster: hint: %s\n", hinter.Hint())
	}
	os.Exit(1)
}
