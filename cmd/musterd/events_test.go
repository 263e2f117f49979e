// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/events"
	"github.com/muster-fleet/muster/reconciler/metrics"
)

var quiet = slog.New(slog.DiscardHandler)

// denial is an event whose line is long, so that files fill fast.
func denial(n int) enforce.Event {
	return enforce.Event{
		Time: time.Unix(1_700_000_000+int64(n), 0), Subject: enforce.Host, Class: policies.ClassFile, Operation: "open",
		Verdict: enforce.Deny, Resource: "/" + strings.Repeat("x", 3000), Source: "/usr/bin/cat", Count: 1,
	}
}

// emit pushes n events through a pipe of its own into sink, one write each, and answers its losses.
func emit(t *testing.T, sink io.Writer, n int) map[string]uint64 {
	t.Helper()
	pipe := events.NewPipe(sink, n, quiet)
	go pipe.Run(t.Context())
	for i := range n {
		pipe.Push(denial(i))
		if err := pipe.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return pipe.Losses()
}

// wholeLines counts the records of an event file, and what is none.
func wholeLines(t *testing.T, text []byte) (records, scraps int) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var r events.Record
		if json.Unmarshal(line, &r) == nil && r.Resource != "" {
			records++
		} else {
			scraps++
		}
	}
	return records, scraps
}

// The event file is turned over at its size: old ones are kept up to a number, compressed, with all they held.
func TestEventFileRotates(t *testing.T) {
	t.Parallel()
	cfg := config.Default().Events
	cfg.File, cfg.MaxSizeMB, cfg.MaxBackups = filepath.Join(t.TempDir(), "log", "events.jsonl"), 1, 2
	sink, closeSink := openSink(cfg, nil, quiet)
	defer closeSink()
	const each = 300 // about a megabyte
	backups := func() []string {
		list, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.File), "events-*.jsonl.gz"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if losses := emit(t, sink, each+50); len(losses) > 0 {
		t.Fatalf("lost: %v", losses)
	}
	// The compressed copy is whole when the one that it was made of is gone.
	files := func(n int) bool {
		all, err := os.ReadDir(filepath.Dir(cfg.File))
		return err == nil && len(all) == n
	}
	await(t, "one compressed backup", func() bool { return len(backups()) == 1 && files(2) })
	file, err := os.Open(backups()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	old, err := io.ReadAll(zipped)
	if err != nil {
		t.Fatal(err)
	}
	current, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	before, scraps := wholeLines(t, old)
	now, more := wholeLines(t, current)
	if before+now != each+50 || scraps+more != 0 || before == 0 || now == 0 {
		t.Errorf("%d records in the backup, %d in the file, %d scraps", before, now, scraps+more)
	}
	if losses := emit(t, sink, 4*each); len(losses) > 0 {
		t.Fatalf("lost: %v", losses)
	}
	await(t, "two backups and no more", func() bool { return len(backups()) == 2 && files(3) })
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// On a full disk events are counted as lost, to the event, and the first ones after it are whole again.
func TestEventFileOnFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, to mount a small file system")
		}
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cfg := config.Default().Events
	cfg.File = filepath.Join(dir, "events.jsonl")
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	sink, closeSink := openSink(cfg, nil, quiet)
	defer closeSink()
	pipe := events.NewPipe(sink, 64, quiet)
	go pipe.Run(t.Context())
	push := func(n int) {
		t.Helper()
		for i := range n {
			pipe.Push(denial(i))
			if err := pipe.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	push(30)
	lost := pipe.Losses()[events.LossWrite]
	if lost == 0 {
		t.Fatal("nothing was lost on a full disk")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	push(3)
	if again := pipe.Losses()[events.LossWrite]; again != lost {
		t.Errorf("%d lost, and %d after there was room again", lost, again)
	}
	text, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	if records, scraps := wholeLines(t, text); uint64(records)+lost != 33 || scraps != 1 {
		t.Errorf("%d records and %d lost of 33, %d scraps", records, lost, scraps)
	}
}

// Metrics are had on a unix socket and, when asked for, on a port; a port that is taken is an error.
func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	pipe := events.NewPipe(nil, 8, quiet)
	shown := metrics.New(&allCounters{pipe: pipe}, "test")
	shown.Refused("rollback")
	cfg := config.Metrics{Socket: filepath.Join(t.TempDir(), "m"), Listen: taken.Addr().String()}
	if err := serveMetrics(t.Context(), cfg, shown, quiet); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("a taken port: %v", err)
	}
	_ = taken.Close()
	go func() {
		if err := serveMetrics(t.Context(), cfg, shown, quiet); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	for name, transport := range map[string]*http.Transport{
		"socket": {Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", cfg.Socket) }, DisableKeepAlives: true},
		"port":   {DisableKeepAlives: true},
	} {
		client := &http.Client{Transport: transport}
		var page string
		await(t, name+" answers", func() bool {
			response, err := client.Get("http://" + cfg.Listen + "/metrics")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			page = string(text)
			return err == nil && response.StatusCode == http.StatusOK
		})
		for _, want := range []string{`muster_releases_refused_total{name="rollback"} 1`, `muster_build_info{version="test"} 1`, "go_goroutines"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %s in\n%.300s", name, want, page)
			}
		}
	}
}
