// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/test/vm"
)

// TestVerifier records what each program costs to verify; the kernel's limit is a million instructions.
func TestVerifier(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	begin := time.Now()
	if _, err := kernelAddresses("/proc/kallsyms"); err != nil {
		t.Fatal(err)
	}
	t.Logf("symbols read in %s", time.Since(begin))
	begin = time.Now()
	if _, err := btf.LoadKernelSpec(); err != nil {
		t.Fatal(err)
	}
	t.Logf("types read in %s", time.Since(begin))
	begin = time.Now()
	spec, err := bpf.LoadMuster()
	if err != nil {
		t.Fatal(err)
	}
	h, err := readHost(spec)
	if err != nil {
		t.Fatal(err)
	}
	programs, err := h.supported(everyDemand)
	if err != nil {
		t.Fatal(err)
	}
	set, err := load(t.Context(), h, nil, 1<<18, loading{programs: programs, iterators: true})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer set.close()
	t.Logf("loaded in %s", time.Since(begin))
	for name, p := range set.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions()
		t.Logf("%-20s %7d instructions verified", name, n)
		// Where a connection begins two decisions are made, about the socket and about the flow: 114,622 on 6.12.
		if n > 150_000 {
			t.Errorf("%s is too hard to verify", name)
		}
	}
}
