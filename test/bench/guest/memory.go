// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/cilium/ebpf"
)

// occupied is the memory of all BPF maps and programs on this machine, where nobody but the engine has any.
func occupied() (uint64, error) {
	var sum uint64
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return 0, err
		}
		id = next
		size, err := mapSize(id)
		if err != nil {
			return 0, err
		}
		sum += size
	}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
		id = next
		size, err := programSize(id)
		if err != nil {
			return 0, err
		}
		sum += size
	}
}

func mapSize(id ebpf.MapID) (uint64, error) {
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		// Gone since it was listed.
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	size, _ := info.Memlock()
	return size, nil
}

func programSize(id ebpf.ProgramID) (uint64, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	size, _ := info.Memlock()
	return size, nil
}
