// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
)

// Clearances are the kernel side's memory of files that the ruleset says nothing of (bpf/include/clear.h). They hold
// for one image and one epoch. The agent ends an epoch when it has written marks, which the kernel side cannot see,
// and when it has attached programs.

// endClearances ends all that were given. The kernel counts the epoch on; a random one is none that has been.
func endClearances(clearing *ebpf.Map) error {
	if err := clearing.Put(uint32(0), &bpf.MusterClearingState{Epoch: randomNumber()}); err != nil {
		return fmt.Errorf("end clearances: %w", err)
	}
	return nil
}
