// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/vm"
)

// TestMachine boots each kernel once and tries everything a resident machine promises.
func TestMachine(t *testing.T) {
	t.Parallel()
	for _, kernel := range vm.Kernels() {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			shared, seed := t.TempDir(), filepath.Join(t.TempDir(), "seed")
			if err := os.WriteFile(seed, []byte("from the host"), 0o640); err != nil {
				t.Fatal(err)
			}
			m := vm.Start(t, vm.Options{
				Kernel: kernel, LSM: vm.AppArmorBPF, Share: shared, Files: map[string]string{seed: "/opt/seed"},
			})
			if !strings.HasPrefix(m.Kernel, kernel+".") || !strings.Contains(m.LSM, "apparmor,bpf") {
				t.Errorf("got kernel %s with %s", m.Kernel, m.LSM)
			}
			// One after the other: the last one ends the machine.
			for _, try := range []func(*testing.T, *vm.Machine){commands, files, root, killed, gone} {
				try(t, m)
			}
			if got, err := os.ReadFile(filepath.Join(shared, "there")); err != nil || string(got) != "live\n" {
				t.Errorf("the shared directory holds %q, %v", got, err)
			}
		})
	}
}

func run(t *testing.T, m *vm.Machine, c vm.Command) vm.Result {
	t.Helper()
	r, err := m.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func commands(t *testing.T, m *vm.Machine) {
	t.Helper()
	if r := run(t, m, vm.Sh("echo out; echo err >&2; exit 7")); r != (vm.Result{Code: 7, Stdout: "out\n", Stderr: "err\n"}) {
		t.Errorf("got %+v", r)
	}
	if r := run(t, m, vm.Sh("kill -TERM $$")); r.Code != 128+15 {
		t.Errorf("a signal gives %d", r.Code)
	}
	if _, err := m.Run(t.Context(), vm.Command{Args: []string{"/no/such"}}); err == nil {
		t.Error("a missing program is no error")
	}
	r := run(t, m, vm.Command{
		Args: []string{"bash", "-c", `id -u; pwd; echo "$X"; cat`}, Env: []string{"X=y"}, Dir: "/tmp", UID: 1001, GID: 1001,
		Stdin: strings.NewReader("input"),
	})
	if r.Stdout != "1001\n/tmp\ny\ninput" {
		t.Errorf("got %q", r.Stdout)
	}
	if r := run(t, m, vm.Sh("seq 1 300000")); len(r.Stdout) != 1988895 || !strings.HasSuffix(r.Stdout, "\n300000\n") {
		t.Errorf("long output came as %d bytes, ending in %q", len(r.Stdout), r.Stdout[max(0, len(r.Stdout)-20):])
	}
	began := time.Now()
	if r := run(t, m, vm.Sh("sleep 60 & echo started")); r.Stdout != "started\n" || time.Since(began) > 30*time.Second {
		t.Errorf("a background child held the command up for %s: %+v", time.Since(began), r)
	}
}

func files(t *testing.T, m *vm.Machine) {
	t.Helper()
	if r := run(t, m, vm.Sh("stat -c %a:%U /opt/seed; cat /opt/seed")); r.Stdout != "640:root\nfrom the host" {
		t.Errorf("the file given at boot: %+v", r)
	}
	here := t.TempDir()
	if err := os.MkdirAll(filepath.Join(here, "in/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(here, "in/sub/f"), []byte("round"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.Put(map[string]string{filepath.Join(here, "in"): "/srv/in"}); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteFile("/srv/in/sub/g", []byte("trip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Get(here, "/srv/in/sub"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "round", "g": "trip"} {
		got, err := os.ReadFile(filepath.Join(here, "srv/in/sub", name))
		if err != nil || string(got) != want {
			t.Errorf("%s came back as %q, %v", name, got, err)
		}
	}
	if got, err := m.ReadFile("/srv/in/sub/f"); err != nil || string(got) != "round" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := m.ReadFile("/no/such"); err == nil {
		t.Error("reading a missing file is no error")
	}
	run(t, m, vm.Sh("echo live >/share/there"))
}

// root checks what the guest promises to those who write tests for it.
func root(t *testing.T, m *vm.Machine) {
	t.Helper()
	script := `set -e
for fs in cgroup2:/sys/fs/cgroup bpf:/sys/fs/bpf tracefs:/sys/kernel/tracing securityfs:/sys/kernel/security debugfs:/sys/kernel/debug; do
  grep -q " ${fs#*:} ${fs%:*} " /proc/mounts || { echo "no $fs"; exit 1; }
done
for p in bash git ssh sshd ps ip mount modprobe capsh update-ca-certificates; do command -v $p >/dev/null || { echo "no $p"; exit 1; }; done
test "$(id -u user1)" = 1001
test -s /sys/kernel/btf/vmlinux
modprobe dummy && ip link add dummy0 type dummy && ip link show dummy0 >/dev/null
git init -q /tmp/repo
exec 3<>/dev/tcp/127.0.0.1/9 2>/dev/null || ip -br addr show lo | grep -q 127.0.0.1`
	if r := run(t, m, vm.Sh(script)); r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

func killed(t *testing.T, m *vm.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := m.Run(ctx, vm.Sh("echo begun; sleep 100 & wait"))
	if !errors.Is(err, context.DeadlineExceeded) || r.Stdout != "begun\n" || r.Code != 128+9 {
		t.Errorf("got %+v, %v", r, err)
	}
	if r := run(t, m, vm.Sh("! pgrep -x sleep -a | grep 100")); r.Code != 0 {
		t.Errorf("the killed command's child lives on: %s", r.Stdout)
	}
}

// gone panics the kernel: an error that says so, not a hang.
func gone(t *testing.T, m *vm.Machine) {
	t.Helper()
	_, err := m.Run(t.Context(), vm.Sh("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 100"))
	if !errors.Is(err, vm.ErrMachine) || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
	if _, err := m.Run(t.Context(), vm.Sh("true")); !errors.Is(err, vm.ErrMachine) {
		t.Errorf("a dead machine answers %v", err)
	}
}

// TestBootEndsWithItsContext: cancelling while it boots leaves no emulator behind.
func TestBootEndsWithItsContext(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	ctx, cancel := context.WithCancel(t.Context())
	console := writerFunc(func([]byte) { cancel() })
	// The console's first byte ends the context; without "quiet" it comes long before the agent answers.
	m, err := vm.Boot(ctx, vm.Options{Console: console, Append: "loglevel=7"})
	if err == nil {
		m.Close()
		t.Fatal("a cancelled boot succeeded")
	}
	if !errors.Is(err, vm.ErrMachine) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
