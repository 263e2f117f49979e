// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
)

// sizeFor fits the maps whose size depends on the machine and the configuration.
func sizeFor(spec *ebpf.CollectionSpec, ringBytes, cpus int) error {
	slots := uint32(cpus) * uint32(bpf.MusterLimitSCRATCH_PER_CPU)
	spec.Maps[bpf.MusterMapScratches].MaxEntries = slots
	spec.Maps[bpf.MusterMapEvents].MaxEntries = uint32(ringBytes)
	if err := spec.Variables[bpf.MusterVarScratchSlots].Set(slots); err != nil {
		return fmt.Errorf("set %s: %w", bpf.MusterVarScratchSlots, err)
	}
	return nil
}
