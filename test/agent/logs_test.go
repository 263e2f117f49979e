// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/events"
)

// eventAgent is what muster logs needs of an agent: its control socket and its pipe of events, both the real ones. The
// story speaks in the place of the kernel, which the backend observe has no events of.
type eventAgent struct {
	*events.Pipe
	followed chan struct{}
}

// Follow implements control.Streamer.
func (a *eventAgent) Follow() (<-chan []byte, func()) {
	lines, stop := a.Pipe.Follow()
	a.followed <- struct{}{}
	return lines, stop
}

// Flush implements control.Streamer.
func (a *eventAgent) Flush(ctx context.Context) error { return a.Barrier(ctx) }

// startEventAgent serves events-agent SOCKET FILE until the story ends.
func startEventAgent(ts *testscript.TestScript, _ bool, args []string) {
	file, err := os.OpenFile(ts.MkAbs(args[1]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	listener, err := control.Listen(ts.MkAbs(args[0]))
	ts.Check(err)
	log := slog.New(slog.DiscardHandler)
	a := &eventAgent{Pipe: events.NewPipe(file, 16, log), followed: make(chan struct{}, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	running.Go(func() { _ = (&control.Server{Stream: a, Log: log, Now: time.Now}).Serve(ctx, listener) })
	ts.Defer(func() {
		cancel()
		running.Wait()
		_ = file.Close()
	})
	*ts.Value(streaming{}).(**eventAgent) = a
}

// streaming is the key under which a story keeps its eventAgent.
type streaming struct{}

// denies is denies POLICY PATH: the kernel denied somebody to read the path.
func denies(ts *testscript.TestScript, _ bool, args []string) {
	a := *ts.Value(streaming{}).(**eventAgent)
	a.Push(enforce.Event{
		Time: time.Now(), Subject: enforce.Host, Class: policies.ClassFile, Operation: "open", Hook: "FILE_OPEN", Mode: enforce.ModeEnforce,
		Verdict: enforce.Deny, Rule: &enforce.Rule{Policy: policies.ID{Kind: policies.KindHost, Name: args[0]}}, Resource: args[1], Source: "/usr/bin/cat", Count: 1,
	})
	ts.Check(a.Barrier(context.Background()))
}

// followed waits until somebody follows the events.
func followed(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-(*ts.Value(streaming{}).(**eventAgent)).followed:
	case <-time.After(time.Minute):
		ts.Fatalf("nobody follows the events")
	}
}

// appears waits until appears FILE TEXT.
func appears(ts *testscript.TestScript, _ bool, args []string) {
	late := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && bytes.Contains(content, []byte(args[1])) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			ts.Fatalf("%s never holds %q (%v):\n%s", args[0], args[1], err, content)
		}
	}
}
