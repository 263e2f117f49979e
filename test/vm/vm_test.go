// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm_test

import (
	"testing"

	"github.com/muster-fleet/muster/test/vm"
)

// TestInVM takes the tests below to both kernels.
func TestInVM(t *testing.T) {
	t.Parallel()
	vm.TestPackage(t, vm.Options{LSM: vm.BPF})
}

func TestGuestHasBPFLSM(t *testing.T) {
	t.Parallel()
	vm.Require(t, vm.BPFLSM)
	t.Run("sub", func(t *testing.T) {
		t.Parallel()
		t.Log("inside")
	})
}
