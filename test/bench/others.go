// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
)

// other is a measurement that a test of another folder does.
type other struct {
	part string
	args []string // of go test
	// line is what it prints: the first part in parentheses is the name of what was measured, the second the number.
	line *regexp.Regexp
}

// others are applying on this very machine, in milliseconds of CPU time, and the memory of a whole musterd in the lab.
func others(kernel string) []other {
	return []other{
		{
			PartApply,
			[]string{"-run", "^$", "-bench", "Apply", "-benchtime", "10x", "./enforce/bpflsm"},
			regexp.MustCompile(`^BenchmarkApply/(\S+?)(?:-\d+)?\s.*?([\d.]+) cpu-ms/op`),
		},
		{
			PartAgent,
			[]string{"-count=1", "-timeout", "60m", "-v", "-run", "TestInVM/" + kernel + "/TestLabFootprint$", "./test/agent"},
			regexp.MustCompile(`measured (\S+) ([\d.]+)`),
		},
	}
}

// The parts of a measurement.
const (
	PartKernel = "kernel" // costs in the lab
	PartApply  = "apply"  // applying on this machine
	PartAgent  = "agent"  // a whole musterd
)

// Others runs those of the measurements that other tests do, and adds what they found. One that a test skipped is not there.
func (r *Report) Others(ctx context.Context, kernel string, parts []string, progress io.Writer) error {
	for _, o := range others(kernel) {
		if !slices.Contains(parts, o.part) {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"test"}, o.args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, progress), progress
		// The flag reaches what is built for the guest, too.
		cmd.Env = append(os.Environ(), "KERNEL="+kernel, "GOFLAGS="+os.Getenv("GOFLAGS")+" -tags=measure")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: go test %v: %w", ErrMeasure, o.args, err)
		}
		if r.Elsewhere == nil {
			r.Elsewhere = map[string]float64{}
		}
		for lines := bufio.NewScanner(&out); lines.Scan(); {
			if m := o.line.FindStringSubmatch(lines.Text()); m != nil {
				v, err := strconv.ParseFloat(m[2], 64)
				if err != nil {
					return fmt.Errorf("%w: %q: %w", ErrMeasure, lines.Text(), err)
				}
				r.Elsewhere[m[1]] = v
			}
		}
	}
	return nil
}
