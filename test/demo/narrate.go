// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// A step is one thing the demo shows: what is about to happen in plain words, and the commands that do it.
type step struct {
	say  string
	runs []run
}

// A run is one command line, printed as it is and run by bash as root in the VM.
type run struct {
	command string
	// fails says that the command must exit with a code other than 0.
	fails bool
	// shows must match what the command printed; nil matches everything.
	shows *regexp.Regexp
	// within repeats the command until it does as expected, at most so long; 0 means once.
	within time.Duration
	// quiet leaves out what the command printed.
	quiet bool
}

// machine runs a bash command line and returns what it printed, both streams together, and its exit code.
type machine interface {
	Bash(ctx context.Context, command string) (output string, code int, err error)
}

// tell walks through the story and stops at the first thing that is not as it was told.
func tell(ctx context.Context, out io.Writer, on machine, story []step) error {
	for number, step := range story {
		fmt.Fprintf(out, "\n\x1b[1m%d. %s\x1b[0m\n", number+1, step.say)
		for _, run := range step.runs {
			if err := show(ctx, out, on, run); err != nil {
				return fmt.Errorf("step %d: %w", number+1, err)
			}
		}
	}
	return nil
}

// show runs one command, again and again within its time, and prints the last outcome.
func show(ctx context.Context, out io.Writer, on machine, run run) error {
	for line := range strings.SplitSeq(run.command, "\n") {
		fmt.Fprintf(out, "   \x1b[36m$ %s\x1b[0m\n", line)
	}
	deadline := time.Now().Add(run.within)
	for {
		output, code, err := on.Bash(ctx, run.command)
		if err != nil {
			return err
		}
		wrong := run.judge(output, code)
		if wrong == nil || time.Now().After(deadline) {
			if !run.quiet || wrong != nil {
				fmt.Fprint(out, indent(output))
			}
			return wrong
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// judge says what is wrong with an outcome, if anything.
func (r run) judge(output string, code int) error {
	switch {
	case r.fails && code == 0:
		return fmt.Errorf("%q succeeded, and must not", r.command)
	case !r.fails && code != 0:
		return fmt.Errorf("%q: exit code %d", r.command, code)
	case r.shows != nil && !r.shows.MatchString(output):
		return fmt.Errorf("%q: nothing in its output matches %s", r.command, r.shows)
	}
	return nil
}

// indent sets output off from the commands.
func indent(output string) string {
	var text strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(output, "\n"), "\n") {
		if line != "" {
			fmt.Fprintf(&text, "     %s\n", line)
		}
	}
	return text.String()
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
