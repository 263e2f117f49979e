// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a writer that can be waited for.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// What takes long is told, on a terminal in one line that goes away; what is quick is not.
func TestProgress(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{false, true} {
		out := &lines{wrote: make(chan struct{}, 1)}
		ctx := context.WithValue(t.Context(), progressKey{}, &progress{out: out, terminal: terminal, patience: 10 * time.Millisecond})
		done := waiting(ctx, "reading a\x1b[2J source")
		<-out.wrote
		done()
		text := out.String()
		if !strings.Contains(text, "reading a\uFFFD[2J source") || strings.HasSuffix(text, "\r\x1b[K") != terminal {
			t.Errorf("terminal %v: %q", terminal, text)
		}
	}
	out := &lines{wrote: make(chan struct{}, 1)}
	ctx := context.WithValue(t.Context(), progressKey{}, &progress{out: out, patience: time.Hour})
	waiting(ctx, "nothing")()
	waiting(t.Context(), "for nobody")()
	if out.String() != "" {
		t.Errorf("told of what was quick: %q", out.String())
	}
}

// full is a disk that is full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

var errFull = errors.New("no space left on device")

// A table that could not be written is an error, as JSON that could not be is.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"schema", "KubeArmorHostPolicy"}, {"lint", "-o", "json", starter}, {"--help"}, {"trust", "--help"}} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, full{}, &stderr); code != 1 || !strings.Contains(stderr.String(), errFull.Error()) {
			t.Errorf("%v: exit %d, %s", args, code, stderr.String())
		}
	}
}

// A signal ends a verb with its own exit code, whatever a library made of it.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	if code := run(ctx, []string{"status", "--socket", t.TempDir()}, &bytes.Buffer{}, &stderr); code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
	if got := stderr.String(); got != "muster: error: interrupted\nmuster: hint: nothing is half done: run it again, and what was done already is found done\n" {
		t.Error(got)
	}
}

// Somebody who is asked something may leave by Ctrl-C.
func TestInterruptibleQuestion(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() { <-asked; cancel() }()
	answer, err := interruptible(ctx, func() (string, error) { close(asked); select {} })
	if answer != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", answer, err)
	}
	if answer, err = interruptible(t.Context(), func() (string, error) { return "yes", nil }); answer != "yes" || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
}
