// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guestDir is where a package's test binary and testdata lie in the guest.
const (
	guestDir    = "/muster/test"
	guestBinary = guestDir + "/package.test"
)

// TestPackage runs those tests of the package in the current directory that call Require, inside one machine for each
// of Kernels(), and shows each as a subtest "KERNEL/TestName/…". The arguments are added to the test binary's. Of these
// names go's own flag chooses: with -run TestInVM/6.12/TestName nothing else runs in the machine either.
func TestPackage(t *testing.T, o Options, args ...string) {
	t.Helper()
	if Inside() {
		return
	}
	Need(t)
	pattern, err := labTests(".")
	if err == nil {
		pattern, err = chosen(pattern, flag.Lookup("test.run").Value.String())
	}
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

// chosen is the pattern for the guest's -test.run: what the third element of this process's own names among the tests
// of all, and every part of them that the elements after it name.
func chosen(all, run string) (string, error) {
	elements := strings.SplitN(run, "/", 4)
	if len(elements) < 3 {
		return all, nil
	}
	which, err := regexp.Compile(elements[2])
	if err != nil {
		return "", fmt.Errorf("-run %s: %w", run, err)
	}
	names := strings.Split(strings.TrimSuffix(strings.TrimPrefix(all, "^("), ")$"), "|")
	names = slices.DeleteFunc(names, func(name string) bool { return !which.MatchString(name) })
	if len(names) == 0 {
		return "", fmt.Errorf("-run %s: %w", run, errNoTests)
	}
	return strings.Join(append([]string{anyOf(names)}, elements[3:]...), "/"), nil
}

// RunTests compiles the tests of a package, runs them inside a machine and shows each as a subtest of t. The arguments
// are the test binary's ("-test.run=…"); the package's testdata directory goes along.
func RunTests(t *testing.T, o Options, pkg string, args ...string) {
	t.Helper()
	Need(t)
	o = o.withDefaults()
	o.Progress = testWriter{t}
	dir := t.TempDir()
	binary := filepath.Join(dir, "package.test")
	if err := BuildStatic(t.Context(), binary, "test", "-c", pkg); err != nil {
		t.Fatal(err)
	}
	o.Files = maps.Clone(o.Files)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files[binary] = guestBinary
	if data, err := testdata(t.Context(), pkg); err != nil {
		t.Fatal(err)
	} else if data != "" {
		o.Files[data] = guestDir + "/testdata"
	}
	m := Start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), o.TestLimit)
	defer cancel()
	shown := 0
	// The binary's own limit comes first: it prints where every goroutine hangs.
	args = append([]string{"-test.timeout=" + (o.TestLimit * 9 / 10).String()}, args...)
	end, err := m.goTest(ctx, args, func(o *outcome) {
		shown++
		o.show(t)
	})
	if err == nil && shown == 0 {
		err = errNoTests
	}
	if err != nil {
		t.Fatalf("running the tests in the guest: %v\n%s", err, end.outside)
	}
	if end.code != 0 {
		t.Errorf("the test binary ended with exit code %d in the guest\n%s", end.code, end.outside)
	}
}

// A pattern that matches nothing must not look like success.
var errNoTests = errors.New("no test ran")

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

// ending is how a test binary ended, and what it printed outside of any test.
type ending struct {
	code    int
	outside string
}

// goTest runs the test binary that is in the guest already and calls each as every top-level test ends.
func (m *Machine) goTest(ctx context.Context, args []string, each func(*outcome)) (ending, error) {
	raw, feed := io.Pipe()
	events := make(chan event)
	converted := make(chan error, 1)
	go func() { converted <- decodeTests(ctx, raw, events) }()
	type finish struct {
		Result
		err error
	}
	finished := make(chan finish, 1)
	go func() {
		defer feed.Close()
		command := append([]string{guestBinary, "-test.v=test2json", "-test.paniconexit0"}, args...)
		r, err := m.Run(ctx, Command{
			Args: command, Dir: guestDir, Env: []string{"CI=" + os.Getenv("CI")}, Stdout: feed, Stderr: feed,
		})
		finished <- finish{r, err}
	}()
	outside := gather(events, each)
	f := <-finished
	return ending{code: f.Code, outside: outside}, errors.Join(f.err, <-converted)
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

// gather builds the outcomes, hands over every top-level one when it has ended, and returns what the binary printed
// outside of any test. A test that never ended has failed.
func gather(events <-chan event, each func(*outcome)) string {
	all := map[string]*outcome{}
	var outside strings.Builder
	for e := range events {
		if e.Test == "" {
			outside.WriteString(e.Output)
			continue
		}
		o := all[e.Test]
		if o == nil {
			o = adopt(all, e.Test)
		}
		switch e.Action {
		case "output":
			o.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			o.result = e
			if !strings.Contains(e.Test, "/") {
				each(o)
				delete(all, e.Test)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		o := all[name]
		if o.result.Action != "" {
			continue
		}
		o.output.WriteString("the test did not end\n")
		o.result.Action = "fail"
		if !strings.Contains(name, "/") {
			each(o)
		}
	}
	return outside.String()
}

// adopt adds a new outcome to the others and to the nearest test above it: a subtest's own name may have slashes.
func adopt(all map[string]*outcome, test string) *outcome {
	o := &outcome{name: test}
	all[test] = o
	for above := test; ; {
		slash := strings.LastIndex(above, "/")
		if slash < 0 {
			return o
		}
		above = above[:slash]
		if parent := all[above]; parent != nil {
			o.name = test[slash+1:]
			parent.children = append(parent.children, o)
			return o
		}
	}
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
