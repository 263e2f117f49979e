// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/conformance/guest"
)

func startHelper(t *testing.T) (*guest.Helper, Programs) {
	t.Helper()
	programs := buildPrograms(t)
	h, err := guest.StartHelper(programs.Helper, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h, programs
}

func order(words ...string) guest.Order { return guest.Order{Held: -1, Argv: words} }

// TestHelperRuns: exit statuses, signals, output and users come back as they are.
func TestHelperRuns(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h, _ := startHelper(t)
	asUser := order("/bin/sh", "-c", "id -u; id -G")
	asUser.UID, asUser.GID = 1001, 1001
	for _, c := range []struct {
		name   string
		order  guest.Order
		code   int
		output string
	}{
		{"success", order("/bin/echo", "a", "b c"), 0, "a b c\n"},
		{"denied", order("/bin/sh", "-c", "echo no >&2; exit 13"), 13, "no\n"},
		{"signal", order("/bin/sh", "-c", "kill -9 $$"), 137, ""},
		{"user", asUser, 0, "1001\n1001\n"},
		{"no input", order("/bin/cat"), 0, ""},
		{"no umask", order("/bin/sh", "-c", "umask"), 0, "0000\n"},
		{"much output", order("/bin/sh", "-c", "yes | head -c 300000"), 0, strings.Repeat("y\n", 4096)},
		{"left behind", order("/bin/sh", "-c", "sleep 30 & echo started"), 0, "started\n"},
	} {
		start := time.Now()
		result, err := h.Run(t.Context(), c.order)
		if err != nil || result.Code != c.code || result.Output != c.output {
			t.Errorf("%s: %d %.80q %v", c.name, result.Code, result.Output, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: took %s", c.name, took)
		}
	}
	if _, err := h.Run(t.Context(), order("/no/such/program")); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestHelperEndsLateSteps: a step that does not end is killed, and the helper serves on.
func TestHelperEndsLateSteps(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h, _ := startHelper(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := h.Run(ctx, order("/bin/sleep", "600")); err == nil {
		t.Error("a killed step is no result")
	}
	if result, err := h.Run(t.Context(), order("/bin/true")); err != nil || result.Code != 0 {
		t.Errorf("afterwards: %v %v", result, err)
	}
}

// TestHelperTerminals: a controlling terminal when it is asked for and none otherwise; each order has its own.
func TestHelperTerminals(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h, _ := startHelper(t)
	if err := h.Terminals(2); err != nil {
		t.Fatal(err)
	}
	ask := order("/bin/sh", "-c", "exec 3</dev/tty && tty <&3")
	if result, err := h.Run(t.Context(), ask); err != nil || result.Code == 0 {
		t.Errorf("without: %v %v", result, err)
	}
	ask.Terminal = true
	for range 2 {
		if result, err := h.Run(t.Context(), ask); err != nil || !strings.HasPrefix(result.Output, "/dev/") {
			t.Errorf("with: %v %v", result, err)
		}
	}
	if _, err := h.Run(t.Context(), ask); err == nil {
		t.Error("a third terminal out of two")
	}
}

// TestHelperHolds: a file that was opened beforehand is written through the held descriptor, under
// whatever name it has now.
func TestHelperHolds(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h, programs := startHelper(t)
	path := t.TempDir() + "/f"
	if err := os.WriteFile(path, []byte("....\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	number, err := h.Hold(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	write := order(programs.Probe, "held-write", path)
	write.Held = number
	if result, err := h.Run(t.Context(), write); err != nil || result.Code != 0 {
		t.Errorf("%v %v", result, err)
	}
	if text, err := os.ReadFile(path + "2"); err != nil || string(text) != "x...\n" {
		t.Errorf("%q %v", text, err)
	}
	if _, err := h.Hold(path); err == nil {
		t.Error("held a file that is not there")
	}
}

// TestHelperStays: it is one process that ends with its input.
func TestHelperStays(t *testing.T) {
	t.Parallel()
	programs := buildPrograms(t)
	h, err := guest.StartHelper(programs.Helper, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.Pid(), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("after Stop: %v", err)
	}
}
