// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"maps"
	"testing"

	"github.com/muster-fleet/muster/test/vm"
)

// TestAddresses compares what the kernel tells a program with what it lists.
func TestAddresses(t *testing.T) {
	t.Parallel()
	vm.Require(t)
	asked, err := askedAddresses()
	if err != nil {
		t.Fatal(err)
	}
	listed, err := listedAddresses("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	if len(listed) != len(kernelSymbols) || !maps.Equal(asked, listed) {
		t.Errorf("%x are listed, the program found %x", listed, asked)
	}
	for _, name := range kernelSymbols {
		if len(name) >= 8*symbolWords {
			t.Errorf("%s does not fit into %d words", name, symbolWords)
		}
	}
}
