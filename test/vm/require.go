// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Feature is something that a test needs of the kernel it runs on.
type Feature string

// The features.
const (
	// BPFLSM: BPF programs of type LSM load and decide.
	BPFLSM Feature = "bpf"
	// AppArmorLSM and SELinuxLSM: the security module is active.
	AppArmorLSM Feature = "apparmor"
	SELinuxLSM  Feature = "selinux"
	// Kernel: a machine of its own, whatever its security modules.
	Kernel Feature = ""
)

// Inside is true in a machine of the lab.
func Inside() bool { return os.Getenv("MUSTER_IN_VM") != "" }

// Require is the first line of a test that runs only in a machine of the lab with these features. On any other
// machine the test is left out, after a check that its package's TestPackage or RunTests will take it there; inside, a
// missing feature is a failure. It must stand in the test function itself: TestPackage finds it there.
func Require(t testing.TB, features ...Feature) {
	t.Helper()
	if !Inside() {
		if err := goesToLab(".", t.Name()); err != nil {
			t.Fatal(err)
		}
		t.Skip("runs in the lab, by the test of this package that calls vm.TestPackage or vm.RunTests")
	}
	active := strings.Split(readFile("/sys/kernel/security/lsm"), ",")
	for _, f := range features {
		if f != Kernel && !slices.Contains(active, string(f)) {
			t.Fatalf("this machine lacks %q: its security modules are %v", f, active)
		}
	}
}

func readFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ErrUnavailable means that this computer cannot run the lab.
var ErrUnavailable = errors.New("the lab cannot run here")

// programs are what the lab runs on the machine itself.
var programs = []string{qemu, "apt-get", "dpkg", "mmdebstrap", "mke2fs", "depmod", "xz", "go"}

// Available says why the lab cannot run here, or nil.
func Available() error {
	if Inside() {
		return fmt.Errorf("%w: this is a machine of the lab already", ErrUnavailable)
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: building its root image takes root", ErrUnavailable)
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %s is missing; install the packages of test/vm/packages.txt", ErrUnavailable, program)
		}
	}
	return nil
}

// Need leaves the test out, loudly, when the lab cannot run here; under CI it fails instead.
func Need(t testing.TB) {
	t.Helper()
	err := Available()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// Start boots a machine for a test and ends it with the test.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	Need(t)
	if o.Progress == nil {
		o.Progress = testWriter{t}
	}
	m, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of %s ends:\n%s", m.Kernel, m.Console())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
