// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFailingTestsAreSeen runs a package whose tests fail, are skipped, and end the process.
func TestFailingTestsAreSeen(t *testing.T) {
	t.Parallel()
	Need(t)
	binary := filepath.Join(t.TempDir(), "package.test")
	if err := BuildStatic(t.Context(), binary, "test", "-c", "./testdata/failing"); err != nil {
		t.Fatal(err)
	}
	m := Start(t, Options{Files: map[string]string{binary: guestBinary}})
	got := map[string]string{}
	collect := func(args ...string) ending {
		t.Helper()
		clear(got)
		end, err := m.goTest(t.Context(), args, func(o *outcome) {
			got[o.name] = o.result.Action
			for _, c := range o.children {
				got[o.name+"/"+c.name] = c.result.Action
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	end := collect("-test.run=Passes|Fails|Skipped")
	want := map[string]string{
		"TestPasses": "pass", "TestFails": "fail", "TestFails/good": "pass", "TestFails/bad": "fail", "TestIsSkipped": "skip",
	}
	for name, action := range want {
		if got[name] != action {
			t.Errorf("%s came back as %q, not %q", name, got[name], action)
		}
	}
	if end.code != 1 {
		t.Errorf("exit code %d", end.code)
	}
	if end := collect("-test.run=EndsTheProcess"); end.code != 3 || got["TestEndsTheProcess"] != "fail" {
		t.Errorf("a test that ends the process: exit code %d, %v", end.code, got)
	}
}

func TestParseMirrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		uris string
		want mirrors
		err  error
	}{
		"both": {
			"'http://a/debian/dists/bookworm/InRelease' x 0 \n'http://c/sec/dists/bookworm-security/InRelease' x 0\n",
			mirrors{"http://a/debian", "http://c/sec", debianKeyring},
			nil,
		},
		"no security": {
			"'http://a/debian/dists/bookworm-updates/InRelease' x 0\n'http://a/debian/dists/stable/InRelease' x 0\n",
			mirrors{"http://a/debian", "http://a/debian-security", debianKeyring},
			nil,
		},
		"a list of mirrors": {
			"'mirror+file:/etc/apt/debian.list/dists/trixie/InRelease' x 0\n'mirror+file:/etc/apt/sec.list/dists/trixie-security/InRelease' x 0\n",
			mirrors{"mirror+file:/etc/apt/debian.list", "mirror+file:/etc/apt/sec.list", debianKeyring},
			nil,
		},
		"others": {"'https://d/node/dists/nodistro/InRelease' x 0\n'http://e/flat/InRelease' x 0\n", mirrors{}, ErrNoMirror},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseMirrors(c.uris)
			if !errors.Is(err, c.err) || err == nil && got != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestNewestMatch(t *testing.T) {
	t.Parallel()
	names := []string{"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64-dbg", "linux-image-6.12.9+deb12-cloud-amd64"}
	l, err := findLine("6.1")
	if err != nil {
		t.Fatal(err)
	}
	if got := newestMatch(names, regexp.MustCompile("^"+l.image+"$")); got != names[1] {
		t.Errorf("got %s", got)
	}
	if _, err := findLine("2.4"); !errors.Is(err, ErrKernel) {
		t.Errorf("got %v", err)
	}
}

func TestLoadOrder(t *testing.T) {
	t.Parallel()
	deps := "kernel/a.ko:\nkernel/virtio-pci.ko.xz: kernel/legacy.ko.xz kernel/ring.ko.xz\nkernel/virtio_blk.ko: kernel/ring.ko.xz\n"
	got := loadOrder(deps, []string{"virtio_pci", "virtio_blk", "absent"})
	want := []string{"kernel/ring.ko.xz", "kernel/legacy.ko.xz", "kernel/virtio-pci.ko.xz", "kernel/virtio_blk.ko"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestBuildIsCompleteOrAbsent: a failed build leaves nothing that a later caller would take for the result.
func TestBuildIsCompleteOrAbsent(t *testing.T) {
	t.Setenv("MUSTER_CACHE", t.TempDir())
	broken := errors.New("broken")
	if _, err := build(t.Context(), "thing", func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), broken)
	}); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	made := 0
	for range 2 {
		dir, err := build(t.Context(), "thing", func(dir string) error {
			made++
			return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
		})
		if err != nil || !exists(filepath.Join(dir, "whole")) || exists(filepath.Join(dir, "half")) {
			t.Errorf("got %s, %v", dir, err)
		}
	}
	if made != 1 {
		t.Errorf("built %d times", made)
	}
}

func TestSlots(t *testing.T) {
	t.Setenv("MUSTER_CACHE", t.TempDir())
	var taken []*os.File
	for range slots {
		f, err := takeSlot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeSlot(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("one slot too many: %v", err)
	}
	for _, f := range taken {
		f.Close()
	}
	f, err := takeSlot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestScan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := goesToLab(dir, "TestA"); !errors.Is(err, ErrNotTaken) {
		t.Errorf("an empty package: %v", err)
	}
	src := `package x
func TestInVM(t *testing.T) { vm.TestPackage(t, vm.Options{}) }
func TestA(t *testing.T) { vm.Require(t, vm.BPFLSM) }
func helper(t *testing.T) { vm.Require(t) }
func TestB(t *testing.T) { helper(t) }
`
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := goesToLab(dir, "TestA/sub"); err != nil {
		t.Error(err)
	}
	if err := goesToLab(dir, "TestB"); !errors.Is(err, ErrNotTaken) || !strings.Contains(err.Error(), "TestB itself") {
		t.Errorf("a test that would run nowhere: %v", err)
	}
	if got, err := labTests(dir); err != nil || got != "^(TestA)$" {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestChosen: -run of this process chooses in the guest too.
func TestChosen(t *testing.T) {
	t.Parallel()
	const all = "^(TestA|TestAll|TestB)$"
	for run, want := range map[string]string{
		"": all, "TestInVM": all, "TestInVM/6.12": all, "TestInVM//": all,
		"TestInVM/6.12/TestB":   "^(TestB)$",
		"TestInVM//^TestA":      "^(TestA|TestAll)$",
		"TestInVM//TestB/x/y z": "^(TestB)$/x/y z",
		"TestInVM//(A$|B)":      "^(TestA|TestB)$",
	} {
		if got, err := chosen(all, run); err != nil || got != want {
			t.Errorf("-run %s: %s, %v, wanted %s", run, got, err, want)
		}
	}
	for _, run := range []string{"TestInVM//TestC", "TestInVM//("} {
		if got, err := chosen(all, run); err == nil {
			t.Errorf("-run %s: %s", run, got)
		}
	}
}

// TestConsoleEnd: what a kernel died of is told, however much it says afterwards.
func TestConsoleEnd(t *testing.T) {
	t.Parallel()
	const fault = "[    9.1] Oops: general protection fault, maybe for address 0x1: 0000 [#1] PREEMPT SMP"
	trace := strings.Repeat("[    9.2]  ? f+0x1/0x2\n", 1000)
	if got := consoleEnd("boot\n" + fault + "\n" + trace); !strings.HasPrefix(got, fault+"\n…") {
		t.Errorf("%.200q", got)
	}
	if got := consoleEnd("boot\n" + fault + "\n"); got != "boot\n"+fault {
		t.Errorf("%q", got)
	}
	if got := consoleEnd(trace); strings.Contains(got, "boot") || len(got) > 3100 {
		t.Errorf("%.200q", got)
	}
}
