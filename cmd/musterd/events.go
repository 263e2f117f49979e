// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/events"
	"github.com/muster-fleet/muster/reconciler/metrics"
)

// openSink opens what events are written to; nil when nobody wants them written.
func openSink(cfg config.Events, stdout io.Writer, log *slog.Logger) (io.Writer, func()) {
	switch cfg.Output {
	case "stdout":
		return stdout, func() {}
	case "none":
		return nil, func() {}
	}
	if err := os.MkdirAll(filepath.Dir(cfg.File), 0o750); err != nil {
		log.Error("events have no directory; enforcing all the same", "file", cfg.File, "error", err)
	}
	file := &lumberjack.Logger{
		Filename: cfg.File, MaxSize: cfg.MaxSizeMB, MaxBackups: cfg.MaxBackups, MaxAge: cfg.MaxAgeDays, Compress: cfg.Compress,
	}
	// A file that cannot be opened is better known now than at the first denial.
	if _, err := file.Write(nil); err != nil {
		log.Error("events cannot be written now; enforcing all the same", "file", cfg.File, "error", err)
	}
	return file, func() { _ = file.Close() }
}

// readEvents moves events from the kernel to the pipe. A backend that stops reading is begun again: what
// the ring could not hold meanwhile is in its own loss counters.
func readEvents(ctx context.Context, source enforce.EventSource, pipe *events.Pipe, log *slog.Logger) error {
	if source == nil {
		return nil
	}
	for ctx.Err() == nil {
		if err := source.Events(ctx, pipe.Push); err != nil && ctx.Err() == nil {
			log.Error("events not read; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// stream gives events to the control socket.
type stream struct {
	pipe   *events.Pipe
	source enforce.EventSource
}

// Follow returns the lines from now on.
func (s *stream) Follow() (<-chan []byte, func()) { return s.pipe.Follow() }

// Flush waits for the kernel's ring first and the queue after it.
func (s *stream) Flush(ctx context.Context) error {
	if flusher, ok := s.source.(interface {
		Flush(ctx context.Context) error
	}); ok {
		if err := flusher.Flush(ctx); err != nil {
			return fmt.Errorf("events: %w", err)
		}
	}
	return s.pipe.Barrier(ctx)
}

// allCounters joins the losses of the kernel's side with those of ours.
type allCounters struct {
	pipe   *events.Pipe
	source enforce.EventSource
}

// Counts are the pipe's.
func (c *allCounters) Counts() []fleet.EventCount { return c.pipe.Counts() }

// Losses are both sides'.
func (c *allCounters) Losses() map[string]uint64 {
	out := c.pipe.Losses()
	if c.source == nil {
		return out
	}
	kernel, err := c.source.Losses()
	if err != nil {
		out["unknown"]++ // the counters cannot be read: say that something may be missing
		return out
	}
	for reason, n := range kernel {
		out[reason] += n
	}
	return out
}

// serveMetrics listens where the configuration says; nowhere is fine.
func serveMetrics(ctx context.Context, cfg config.Metrics, shown *metrics.Metrics, log *slog.Logger) error {
	var listeners []net.Listener
	if cfg.Socket != "" {
		listener, err := control.Listen(cfg.Socket)
		if err != nil {
			return err
		}
		listeners = append(listeners, listener)
	}
	if cfg.Listen != "" {
		listener, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return fmt.Errorf("metrics: %w", err)
		}
		listeners = append(listeners, listener)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", shown.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { failed <- server.Serve(listener) }()
	}
	for range listeners {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	return nil
}
