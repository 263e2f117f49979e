// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/events"
	"github.com/muster-fleet/muster/reconciler/metrics"
)

// wallClock is the real time.
type wallClock struct{}

func (wallClock) Now() time.Time                         { return time.Now() }
func (wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// serve wires the agent and runs it until ctx ends. What is in the kernel stays there.
func serve(ctx context.Context, path string, stdout, stderr io.Writer) error {
	var verbosity slog.LevelVar
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: &verbosity}))
	early, err := claimEarly(log)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	verbosity.Set(level(cfg.LogLevel))
	if err := bpflsm.KnownPlaces(cfg.BPFFS, decidingOf(path, cfg)); err != nil {
		return err
	}
	for _, dir := range []string{cfg.StateDir, cfg.CacheDir, filepath.Dir(cfg.HostKey)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("state: %w", bpflsm.Recognition(cfg.BPFFS, err))
		}
	}
	unlock, err := lock(filepath.Join(cfg.StateDir, "lock"))
	if err != nil {
		return bpflsm.Recognition(cfg.BPFFS, err)
	}
	defer unlock()
	back, err := openBackend(cfg, early, log)
	if err != nil {
		return err
	}
	defer back.close(log)
	sink, closeSink := openSink(cfg.Events, stdout, log)
	defer closeSink()
	return runAgent(ctx, path, cfg, log, back, events.NewPipe(sink, cfg.Events.Queue, log))
}

func runAgent(ctx context.Context, path string, cfg *config.Config, log *slog.Logger, back *backend, pipe *events.Pipe) error {
	node, err := newHost(path, cfg, back.features, log)
	if err != nil {
		return err
	}
	reporter, err := newReporter(cfg, log)
	if err != nil {
		return err
	}
	counters := &allCounters{pipe: pipe, source: back.events}
	shown := metrics.New(counters, version)
	loader := &loader{path: path, host: node, running: cfg}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	loop := reconciler.New(reconciler.Deps{
		Load: loader.load, StateDir: cfg.StateDir,
		Host: node, Backend: back.backend, Reporter: reporter, Protector: newProtector(path, cfg, back), Counters: counters, Watcher: shown, Clock: wallClock{}, Log: log,
		Identified: func(fleetName, hostname string, postures enforce.Postures) {
			pipe.SetIdentity(events.Identity{
				Fleet: fleetName, Hostname: hostname, Backend: back.backend.Name(), Postures: postures, NoArguments: !cfg.Events.Arguments,
			})
		},
		Audited: func(list []enforce.AuditedPolicy) { pipe.Audited(list, time.Now()) },
		Notify:  notify(log), Watchdog: watchdog, Version: version,
	})
	server := &control.Server{Ask: loop, Do: loop, Stream: &stream{pipe: pipe, source: back.events}, Log: log, Now: time.Now}
	return together(ctx, log, parts{loop: loop, server: server, pipe: pipe, back: back, metrics: shown, host: node, cfg: cfg})
}

type parts struct {
	loop    *reconciler.Loop
	server  *control.Server
	pipe    *events.Pipe
	back    *backend
	metrics *metrics.Metrics
	host    *hostFacts
	cfg     *config.Config
}

// together runs all parts; the first that fails ends all, and everything has ended when it returns.
func together(ctx context.Context, log *slog.Logger, p parts) error {
	listener, err := control.Listen(p.cfg.Socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Events are written until everybody who makes them has stopped.
	pipeCtx, stopPipe := context.WithCancel(context.WithoutCancel(ctx))
	var writing sync.WaitGroup
	writing.Go(func() { p.pipe.Run(pipeCtx) })
	working := map[string]<-chan struct{}{}
	start := func(name string, fn func(context.Context) error) {
		done := make(chan struct{})
		working[name] = done
		go func() {
			defer close(done)
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		}()
	}
	start("loop", p.loop.Run)
	start("control", func(ctx context.Context) error { return p.server.Serve(ctx, listener) })
	start("metrics", func(ctx context.Context) error { return serveMetrics(ctx, p.cfg.Metrics, p.metrics, log) })
	start("events", func(ctx context.Context) error { return readEvents(ctx, p.back.events, p.pipe, log) })
	start("host", p.host.watch)
	start("signals", func(ctx context.Context) error { return reloadOnHangup(ctx, p.loop, log) })
	<-ctx.Done()
	if left := unfinished(working, time.After(stopGrace)); len(left) > 0 {
		log.Error("parts of the agent did not stop; leaving them", "parts", left, "grace", stopGrace)
	}
	stopPipe()
	writing.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	log.Info("stopped; the kernel goes on enforcing")
	return nil
}

// stopGrace bounds a stop: enforcement needs no agent, and a service manager's SIGKILL would lose queued events.
const stopGrace = 10 * time.Second

// unfinished waits for the parts to end and names those that had not when grace was over.
func unfinished(parts map[string]<-chan struct{}, grace <-chan time.Time) []string {
	var left []string
	over := false
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if !over {
			select {
			case <-parts[name]:
				continue
			case <-grace:
				over = true
			}
		}
		select {
		case <-parts[name]:
		default:
			left = append(left, name)
		}
	}
	return left
}

func reloadOnHangup(ctx context.Context, loop *reconciler.Loop, log *slog.Logger) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := loop.Reload(ctx); err != nil && ctx.Err() == nil { // who is stopped meanwhile has not failed
				log.Error("reload", "error", err)
			}
		}
	}
}

// notify tells the service manager, if there is one.
func notify(log *slog.Logger) func(string) {
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Debug("service manager not told", "error", err)
		}
	}
}

func level(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return l
}

// lock keeps a second agent away from the same state; the kernel frees it with the process.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, &control.Error{Name: "running", Message: fmt.Sprintf("another agent uses %s", filepath.Dir(path)), Advice: "stop it first: systemctl stop musterd"}
	}
	return func() { _ = file.Close() }, nil
}
