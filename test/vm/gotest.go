// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guestDir is where a package's test binary and testdata lie in the guest.
const guestDir = "/muster/test"

// testLimit ends a guest's test run that hangs.
const testLimit = 10 * time.Minute

// TestPackage runs those tests of the package in the current directory that call Require, inside one machine for each
// of Kernels(), and shows each as a subtest "KERNEL/TestName/…". The arguments are added to the test binary's.
func TestPackage(t *testing.T, o Options, args ...string) {
	t.Helper()
	if Inside() {
		return
	}
	Need(t)
	pattern, err := labTests(".")
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-test.run=" + pattern}, args...)
	for _, kernel := range Kernels() {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			o := o
			o.Kernel = kernel
			RunTests(t, o, ".", args...)
		})
	}
}

// RunTests compiles the tests of a package, runs them inside a machine and shows each as a subtest of t. The arguments
// are the test binary's ("-test.run=…"); the package's testdata directory goes along.
func RunTests(t *testing.T, o Options, pkg string, args ...string) {
	t.Helper()
	Need(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "package.test")
	if err := buildStatic(t.Context(), binary, "test", "-c", pkg); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{binary: guestDir + "/package.test"}
	if data, err := testdata(t.Context(), pkg); err != nil {
		t.Fatal(err)
	} else if data != "" {
		files[data] = guestDir + "/testdata"
	}
	m := Start(t, o)
	if err := m.Put(files); err != nil {
		t.Fatal(err)
	}
	m.runTests(t, guestDir+"/package.test", args)
}

// testdata returns the package's testdata directory, or "".
func testdata(ctx context.Context, pkg string) (string, error) {
	out, err := output(ctx, "go", "list", "-f", "{{.Dir}}", pkg)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(strings.TrimSpace(out), "testdata")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return dir, nil
}

// runTests runs a test binary that is in the guest already.
func (m *Machine) runTests(t *testing.T, binary string, args []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	raw, feed := io.Pipe()
	events := make(chan event)
	converted := make(chan error, 1)
	go func() { converted <- decodeTests(ctx, raw, events) }()
	var code int
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer feed.Close()
		command := append([]string{binary, "-test.v=test2json", "-test.paniconexit0", "-test.timeout=9m"}, args...)
		var r Result
		r, failed = m.Run(ctx, Command{
			Args: command, Dir: guestDir, Env: []string{"CI=" + os.Getenv("CI")}, Stdout: feed, Stderr: feed,
		})
		code = r.Code
	}()
	whole := replay(t, events)
	<-done
	if err := errors.Join(failed, <-converted); err != nil {
		t.Fatalf("running the tests in the guest: %v\n%s", err, whole)
	}
	if code != 0 {
		t.Errorf("the test binary ended with exit code %d in the guest\n%s", code, whole)
	}
}

// event is one line of test2json.
type event struct {
	Action  string
	Test    string
	Elapsed float64
	Output  string
}

// decodeTests turns a test binary's verbose output into events.
func decodeTests(ctx context.Context, raw io.ReadCloser, events chan<- event) error {
	defer close(events)
	defer raw.Close()
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = raw
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading test2json: %w", err)
		}
		events <- e
	}
	return errors.Join(lines.Err(), cmd.Wait())
}

// outcome is one guest test with its subtests in the order they began.
type outcome struct {
	name     string
	result   event
	output   strings.Builder
	children []*outcome
}

// replay shows every top-level test as a subtest as soon as it has ended, and returns what the binary printed
// outside of any test.
func replay(t *testing.T, events <-chan event) string {
	t.Helper()
	all := map[string]*outcome{}
	var outside strings.Builder
	for e := range events {
		if e.Test == "" {
			outside.WriteString(e.Output)
			continue
		}
		o := all[e.Test]
		if o == nil {
			o = &outcome{name: e.Test[strings.LastIndex(e.Test, "/")+1:]}
			all[e.Test] = o
			if parent := all[e.Test[:max(strings.LastIndex(e.Test, "/"), 0)]]; parent != nil {
				parent.children = append(parent.children, o)
			}
		}
		switch e.Action {
		case "output":
			o.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			o.result = e
			if !strings.Contains(e.Test, "/") {
				o.show(t)
				delete(all, e.Test)
			}
		}
	}
	for name, o := range all {
		if !strings.Contains(name, "/") {
			o.result.Action = "fail"
			o.output.WriteString("the test did not end\n")
			o.show(t)
		}
	}
	return outside.String()
}

// show runs the outcome as a subtest.
func (o *outcome) show(t *testing.T) {
	t.Helper()
	t.Run(o.name, func(t *testing.T) {
		for _, c := range o.children {
			c.show(t)
		}
		text := fmt.Sprintf("in the guest, %.1f s:\n%s", o.result.Elapsed, o.output.String())
		switch o.result.Action {
		case "pass":
			if testing.Verbose() {
				t.Log(text)
			}
		case "skip":
			t.Skip(text)
		default:
			t.Error(text)
		}
	})
}
