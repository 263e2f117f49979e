// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/test/vm"
)

// effort is what it takes the kernel to verify one program; its limit is a million instructions.
type effort struct{ instructions, states int }

// verifierTable holds what was measured, by kernel line and program.
const verifierTable = "testdata/verifier.txt"

// TestVerifier compares what each program costs to verify with the committed table: it must not grow unseen. Attaching
// is mostly this.
func TestVerifier(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	line := kernelLine(t)
	known := readEfforts(t, line)
	found := verify(t)
	var table strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found)) {
		is, was := found[name], known[name]
		fmt.Fprintf(&table, "%s %s %d %d\n", line, name, is.instructions, is.states)
		if len(known) > 0 && (grown(is.instructions, was.instructions) || grown(is.states, was.states)) {
			t.Errorf("%s: %d instructions and %d states verified, before %d and %d", name, is.instructions, is.states,
				was.instructions, was.states)
		}
	}
	for name := range known {
		if _, ok := found[name]; !ok {
			t.Errorf("%s is in %s and not among the programs", name, verifierTable)
		}
	}
	t.Logf("the lines of %s:\n%s", verifierTable, &table)
	if len(known) == 0 {
		t.Errorf("nothing is recorded of %s to compare with: put the lines into %s", line, verifierTable)
	}
}

// grown allows for what compilers and kernels of one line differ in.
func grown(is, was int) bool { return is > was+was/5+50 }

// kernelLine is the kernel's major and minor number.
func kernelLine(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`^\d+\.\d+`).FindString(unix.ByteSliceToString(name.Release[:]))
}

func readEfforts(t *testing.T, line string) map[string]effort {
	t.Helper()
	f, err := os.Open(verifierTable)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	known := map[string]effort{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kernel, name string
		var e effort
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		if _, err := fmt.Sscan(lines.Text(), &kernel, &name, &e.instructions, &e.states); err != nil {
			t.Fatalf("%s: %q: %v", verifierTable, lines.Text(), err)
		}
		if kernel == line {
			known[name] = e
		}
	}
	return known
}

var processed = regexp.MustCompile(`processed (\d+) insns .* total_states (\d+)`)

// verify loads the programs as load does, with the kernel's statistics.
func verify(t *testing.T) map[string]effort {
	t.Helper()
	h, err := readHost(must(bpf.LoadMuster()))
	if err != nil {
		t.Fatal(err)
	}
	programs, err := h.supported(everyDemand)
	if err != nil {
		t.Fatal(err)
	}
	spec := chosen(h.programs, loading{programs: programs, iterators: true})
	if err := new(programSet).specialise(spec, h, 1<<18); err != nil {
		t.Fatal(err)
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if refused, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		t.Fatalf("%+v", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	found := map[string]effort{}
	for name, p := range loaded.Programs {
		numbers := processed.FindStringSubmatch(p.VerifierLog)
		if numbers == nil {
			t.Fatalf("%s: no statistics in %q", name, p.VerifierLog)
		}
		var e effort
		if _, err := fmt.Sscan(numbers[1]+" "+numbers[2], &e.instructions, &e.states); err != nil {
			t.Fatal(err)
		}
		found[name] = e
	}
	return found
}
