// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// patience is how long a verb may be silent.
const patience = 2 * time.Second

// progress says on stderr what a verb waits for, when that takes longer than patience: on a terminal in one line that
// goes away again, elsewhere (CI) in a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	patience time.Duration

	mu sync.Mutex // one line at a time
}

type progressKey struct{}

// withProgress gives the verbs below ctx a place for their progress.
func withProgress(ctx context.Context, stderr *os.File) context.Context {
	return context.WithValue(ctx, progressKey{}, &progress{out: stderr, terminal: term.IsTerminal(int(stderr.Fd())), patience: patience})
}

// waiting begins to wait for what is named; done ends it, and must be called before anything else is written.
func waiting(ctx context.Context, what string) (done func()) {
	p, _ := ctx.Value(progressKey{}).(*progress)
	if p == nil {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); p.tell(printable(what), stop) }()
	return func() { close(stop); <-stopped }
}

// tell writes until stop: on a terminal every second, elsewhere after twice the time each time.
func (p *progress) tell(what string, stop <-chan struct{}) {
	begun := time.Now()
	timer := time.NewTimer(p.patience)
	defer timer.Stop()
	told := false
	for {
		select {
		case <-stop:
			if told && p.terminal {
				p.write("\r\x1b[K")
			}
			return
		case <-timer.C:
		}
		told = true
		spent := time.Since(begun)
		if p.terminal {
			p.write(fmt.Sprintf("\r\x1b[Kmuster: %s (%d s)", what, int(spent.Seconds())))
			timer.Reset(p.patience / 2)
			continue
		}
		p.write(fmt.Sprintf("muster: note: still %s, after %d s\n", what, int(spent.Seconds())))
		timer.Reset(spent)
	}
}

func (p *progress) write(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.out, text) // progress that nobody can read is no failure
}
