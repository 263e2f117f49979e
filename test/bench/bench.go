// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package bench measures what enforcement costs the programs of a host, in instructions per operation.
//
// The method. A machine of the lab counts instructions (one virtual nanosecond each), so that a process's CPU time
// is its instruction count whatever else this computer does; repeated runs agree within 0.1 %. One static C program
// (work/work.c) performs one operation many times. A driver inside (guest/) runs it in rounds; in every round each
// case has its turn: nothing attached, empty BPF programs on the engine's own hooks, and Muster with 1 to
// 10,000 path rules. What is reported is the median over the rounds of the difference to "nothing" of the same round,
// so that slow changes of the machine (a longer dentry chain, another layout of memory) cancel out. Nothing is
// compared across boots.
//
// Limits. Instructions are not cycles: caches, branch prediction and lock contention are invisible. An exec has
// two modes some thousand instructions apart, depending on address space layout: it takes hundreds of runs.
package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/muster-fleet/muster/test/vm"
)

//go:embed work/work.c
var workSource []byte

// ErrMeasure means that the measurement did not come to an end.
var ErrMeasure = errors.New("the measurement failed")

// Where things lie in the guest.
const (
	guestDriver = "/opt/bench/driver"
	guestWork   = "/opt/bench/work"
)

// Options say what to measure.
type Options struct {
	// Kernel is the lab's kernel line.
	Kernel string
	// Rounds is how often each case has its turn.
	Rounds int
	// Cases are the names of the cases, in order; the first must be "none".
	Cases []string
	// Operations are the names of the rows; none means all.
	Operations []string
	// Scale divides the number of operations: 1 for a measurement, more for a test of the method.
	Scale int
	// Progress receives what the driver tells about itself.
	Progress io.Writer
}

// Sample is one run of the measured program.
type Sample struct {
	Case  string `json:"case"`
	Round int    `json:"round"`
	Op    string `json:"op"`
	N     int    `json:"n"`
	// CPU is the instructions of the process and its children; Wall is all instructions of the CPU meanwhile, idle
	// time included. Both for N operations.
	CPU  uint64 `json:"cpu"`
	Wall uint64 `json:"wall"`
}

// Load is what it took to put one ruleset into the kernel, and what it occupies there.
type Load struct {
	Case  string `json:"case"`
	Round int    `json:"round"`
	Rules int    `json:"rules"`
	// Attach (programs loaded and attached), Compile (policies to ruleset) and Publish (ruleset to enforced) are instructions of the driver process.
	// Change is the last two once more, with one rule changed.
	Attach  uint64 `json:"attach"`
	Compile uint64 `json:"compile"`
	Publish uint64 `json:"publish"`
	Change  uint64 `json:"change"`
	// Memory is what the kernel says our maps and programs occupy, in bytes.
	Memory uint64 `json:"memory"`
}

// SwapResult is what became of the operations during swaps.
type SwapResult struct {
	Operations int `json:"operations"`
	Swaps      int `json:"swaps"`
	// Leaked were denied by every ruleset and let in, Refused denied by none and refused, Other ended with another error.
	Leaked  int `json:"leaked"`
	Refused int `json:"refused"`
	Other   int `json:"other"`
}

// Line is one line of the driver's output: exactly one field is set.
type Line struct {
	Sample *Sample     `json:"sample,omitempty"`
	Load   *Load       `json:"load,omitempty"`
	Swaps  *SwapResult `json:"swaps,omitempty"`
}

// Run boots a machine and measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	driver, work := filepath.Join(dir, "driver"), filepath.Join(dir, "work")
	if err := vm.BuildStatic(ctx, driver, "build", "github.com/muster-fleet/muster/test/bench/guest"); err != nil {
		return nil, err
	}
	if err := compileWork(ctx, work); err != nil {
		return nil, err
	}
	m, err := vm.Boot(ctx, vm.Options{
		Kernel: o.Kernel, LSM: vm.BPF, ICount: true, Memory: 2048, Progress: o.Progress,
		// Without randomized address spaces an exec varies ten times less.
		Append: "norandmaps",
		Files:  map[string]string{driver: guestDriver, work: guestWork},
	})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	report := &Report{Kernel: m.Kernel, LSM: m.LSM, Rounds: o.Rounds}
	return report, measure(ctx, m, o, report)
}

func measure(ctx context.Context, m *vm.Machine, o Options, report *Report) error {
	args := []string{
		guestDriver, fmt.Sprintf("-rounds=%d", o.Rounds), fmt.Sprintf("-scale=%d", o.Scale),
		"-ops=" + strings.Join(o.Operations, ","),
	}
	// The driver's lines arrive in pieces; a pipe puts them together.
	lines, feed := io.Pipe()
	read := make(chan error, 1)
	go func() { read <- report.read(lines) }()
	r, err := m.Run(ctx, vm.Command{Args: append(args, o.Cases...), Stdout: feed, Stderr: o.Progress})
	feed.Close()
	switch {
	case err != nil:
		return err
	case r.Code != 0:
		return fmt.Errorf("%w: exit code %d", ErrMeasure, r.Code)
	default:
		return <-read
	}
}

// read takes the driver's output into the report.
func (r *Report) read(in *io.PipeReader) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var l Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			err = fmt.Errorf("%w: unreadable line %q", ErrMeasure, lines.Text())
			in.CloseWithError(err)
			return err
		}
		if l.Sample != nil {
			r.Samples = append(r.Samples, *l.Sample)
		}
		if l.Load != nil {
			r.Loads = append(r.Loads, *l.Load)
		}
		if l.Swaps != nil {
			r.Swaps = l.Swaps
		}
	}
	return lines.Err()
}

// compileWork makes the measured program with the machine's C compiler.
func compileWork(ctx context.Context, target string) error {
	cmd := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-Wall", "-Werror", "-x", "c", "-o", target, "-")
	cmd.Stdin = bytes.NewReader(workSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the measured program: %w: %s", err, out)
	}
	return nil
}
