// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// Usable says why this backend cannot work on the running kernel: an error that is ErrUnsupported, or nil. It loads one
// program of two instructions, which is attached nowhere.
func Usable() error {
	if err := activeLSM(); err != nil {
		return err
	}
	loop, err := haveLoop()
	if err == nil && !loop {
		return olderUsable()
	}
	return err
}

// activeLSM says why BPF is no security module of the running kernel.
func activeLSM() error {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf") {
		return fmt.Errorf("%w: bpf is not among its security modules: add lsm=…,bpf to its command line", ErrUnsupported)
	}
	return nil
}

// haveLoop looks for bpf_loop. The helper is no program type's own; LSM programs cannot be probed without a hook. Kernels
// before 5.11 count programs and maps as locked memory, those of an agent before this one as well: that limit goes first.
func haveLoop() (bool, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return false, fmt.Errorf("look for bpf_loop: raise the limit of locked memory: %w", err)
	}
	switch err := features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnLoop); {
	case errors.Is(err, ebpf.ErrNotSupported):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for bpf_loop: %w", err)
	}
	return true, nil
}
