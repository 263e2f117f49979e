// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/muster-fleet/muster/bpf"
)

// Linux 5.10 has BPF-LSM and lacks much of what the programs use on later kernels: they are compiled for it a third time.
// docs/decisions/0022-linux-5.10.md says what that is, and what is not enforced there.

// errOlder is why self-protection is not in force on such a kernel.
var errOlder = errors.New("self-protection needs Linux 5.17")

// isOlder says whether the running kernel needs those programs. The kernel is asked once.
func isOlder() bool {
	loop, err := haveLoop()
	return err == nil && !loop
}

// builtIn are the programs for this kernel, as far as can be told without reading its types: see programsFor.
func builtIn() (*ebpf.CollectionSpec, error) {
	read := bpf.LoadMuster
	if isOlder() {
		read = bpf.LoadOlder
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read the built-in programs: %w", err)
	}
	return spec, nil
}

// olderUsable says why a kernel without bpf_loop is not one of those that the third object is for: 5.12 gave many hooks
// another first argument, and early releases of 5.10 tell of a rename otherwise.
func olderUsable() error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("%w: no BTF: %w", ErrUnsupported, err)
	}
	var link *btf.Func
	if err := kernel.TypeByName("vfs_link", &link); err != nil {
		return fmt.Errorf("%w: look for vfs_link: %w", ErrUnsupported, err)
	}
	if p, is := link.Type.(*btf.FuncProto); !is || len(p.Params) != 4 {
		return fmt.Errorf("%w: of those without bpf_loop, which came with Linux 5.17, it is 5.10 alone that is supported", ErrUnsupported)
	}
	var rename *btf.Struct
	if err := kernel.TypeByName("renamedata", &rename); err != nil {
		return fmt.Errorf("%w: it lacks struct renamedata, as early releases of Linux 5.10 do: %w", ErrUnsupported, err)
	}
	return nil
}
