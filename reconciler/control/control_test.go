// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agent answers as an agent would.
type agent struct {
	suspended *Suspension
	lines     chan []byte
}

func (a *agent) Status(context.Context) (*Status, error) { return &Status{Version: "v"}, nil }
func (a *agent) Plan(context.Context) (*Plan, error) {
	return nil, errors.New("the kernel cannot be read")
}
func (a *agent) Rulesets(context.Context) (*Rulesets, error) { return &Rulesets{}, nil }
func (a *agent) Sync(_ context.Context, r SyncRequest) (*SyncResult, error) {
	return &SyncResult{Outcome: OutcomeEnforced, Revision: fmt.Sprint(r.Wait, r.Reload)}, nil
}

func (a *agent) Suspend(_ context.Context, r SuspendRequest) (*Suspension, error) {
	a.suspended = &Suspension{Reason: r.Reason, Until: r.Until}
	return a.suspended, nil
}

func (a *agent) StandDown(_ context.Context, file []byte) (*StandDown, error) {
	return &StandDown{Reason: string(file)}, nil
}
func (a *agent) Resume(context.Context) error    { a.suspended = nil; return nil }
func (a *agent) Reload(context.Context) error    { return nil }
func (a *agent) Flush(context.Context) error     { return nil }
func (a *agent) Follow() (<-chan []byte, func()) { return a.lines, func() {} }

func serve(t *testing.T) (*agent, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // a short path: unix sockets have 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{lines: make(chan []byte, 8)}
	server := &Server{Ask: a, Do: a, Stream: a, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a, path
}

func TestQuestionsAndAnswers(t *testing.T) {
	t.Parallel()
	a, path := serve(t)
	c := NewClient(path)
	if s, err := c.Status(t.Context()); err != nil || s.Version != "v" {
		t.Errorf("%+v %v", s, err)
	}
	if r, err := c.Sync(t.Context(), SyncRequest{Wait: true}); err != nil || r.Outcome != OutcomeEnforced || r.Revision != "true false" {
		t.Errorf("%+v %v", r, err)
	}
	var refusal *Error
	if _, err := c.Plan(t.Context()); !errors.As(err, &refusal) || refusal.Message != "the kernel cannot be read" {
		t.Errorf("%v", err)
	}
	if _, err := c.Suspend(t.Context(), SuspendRequest{Reason: "r", Until: time.Now().Add(time.Hour)}); err != nil || a.suspended == nil {
		t.Error(err)
	}
	if err := c.Resume(t.Context()); err != nil || a.suspended != nil {
		t.Error(err)
	}
}

func TestSuspensionsAreBounded(t *testing.T) {
	t.Parallel()
	_, path := serve(t)
	c := NewClient(path)
	for name, r := range map[string]SuspendRequest{
		"no reason":   {Until: time.Now().Add(time.Hour)},
		"long reason": {Reason: strings.Repeat("x", maxReason+1), Until: time.Now().Add(time.Hour)},
		"past":        {Reason: "r", Until: time.Now().Add(-time.Hour)},
		"for ever":    {Reason: "r", Until: time.Now().Add(365 * 24 * time.Hour)},
		"huge":        {Reason: strings.Repeat("x", maxRequest+1), Until: time.Now().Add(time.Hour)},
	} {
		var refusal *Error
		if _, err := c.Suspend(t.Context(), r); !errors.As(err, &refusal) || refusal.Message == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A stand-down of any size that its reader takes gets through: bundles bounds it by the same number.
func TestStandDownFits(t *testing.T) {
	t.Parallel()
	_, path := serve(t)
	for size, fits := range map[int]bool{maxRequest: true, maxRequest + 1: false} {
		s, err := NewClient(path).StandDown(t.Context(), []byte(`"`+strings.Repeat("x", size-2)+`"`))
		if fits != (err == nil && len(s.Reason) == size) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestEventsStream(t *testing.T) {
	t.Parallel()
	a, path := serve(t)
	for i := range 5 {
		a.lines <- fmt.Appendf(nil, `{"n":%d}`, i)
	}
	close(a.lines)
	var got []string
	err := NewClient(path).Events(t.Context(), func(line []byte) error { got = append(got, string(line)); return nil })
	if !errors.Is(err, ErrUnreachable) || len(got) != 5 || got[4] != `{"n":4}` {
		t.Errorf("%v %v", got, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	var refusal *Error
	if !errors.Is(err, ErrUnreachable) || !errors.As(err, &refusal) || !strings.Contains(refusal.Hint(), "not running") {
		t.Errorf("%v", err)
	}
}

func TestSocketOfALivingAndOfADeadAgent(t *testing.T) {
	t.Parallel()
	_, path := serve(t)
	var refusal *Error
	if _, err := Listen(path); !errors.As(err, &refusal) || refusal.Name != "running" {
		t.Errorf("%v", err)
	}
	dead := filepath.Join(filepath.Dir(path), "d")
	listener, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	again, err := Listen(dead)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

// TestListenSparesOtherFiles: a socket's path that names a file by mistake does not cost the file.
func TestListenSparesOtherFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "trust.yaml")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "x" {
		t.Errorf("%q %v", content, err)
	}
}

// TestStrangersAreRefused dials as another user; the socket's mode is opened first, so that it is the
// kernel's word about the peer that refuses.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Logf("not tried: needs root")
		return
	}
	_, path := serve(t)
	for _, p := range []struct {
		name string
		mode os.FileMode
	}{{filepath.Dir(path), 0o755}, {path, 0o666}} {
		if err := os.Chmod(p.name, p.mode); err != nil {
			t.Fatal(err)
		}
	}
	dial := func(uid int) string {
		answer := make(chan string)
		go func() {
			// Only this thread becomes somebody else; it ends with the goroutine, being locked to it.
			runtime.LockOSThread()
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				answer <- errno.Error()
				return
			}
			answer <- ask(path)
		}()
		return <-answer
	}
	if out := dial(0); !strings.Contains(out, "200 OK") {
		t.Errorf("root: %s", out)
	}
	if out := dial(65534); strings.Contains(out, "HTTP/1") {
		t.Errorf("nobody: %s", out)
	}
}

// ask sends a request by hand and returns what comes back.
func ask(path string) string {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.0\r\n\r\n"); err != nil {
		return err.Error()
	}
	out, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(out)
}
