// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// kernelSymbols are the sequence locks that guard paths, and the namespaces of the host itself.
var kernelSymbols = []string{"rename_lock", "mount_lock", "init_nsproxy", "init_user_ns"}

// symbolWords is the longest name of a kernelSymbol with the NUL behind it, in words of eight bytes.
const symbolWords = 2

// kernelAddresses finds the kernelSymbols. Where the kernel hides addresses they are 0: the walker then reads once,
// every mount namespace counts as the host's, and the kernel counts that.
func kernelAddresses() (map[string]uint64, error) {
	if found, err := askedAddresses(); err == nil {
		return found, nil
	}
	return listedAddresses("/proc/kallsyms")
}

// askedAddresses has a program ask for them: the list of all symbols, which the kernel has to print and we to read, is five
// megabytes long.
func askedAddresses() (map[string]uint64, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "addresses", Type: ebpf.Syscall, Flags: sleepable, License: "Dual BSD/GPL", Instructions: lookups(kernelSymbols),
	})
	if err != nil {
		return nil, fmt.Errorf("look for kernel symbols: %w", err)
	}
	defer program.Close()
	found := make([]uint64, len(kernelSymbols))
	if _, err := program.Run(&ebpf.RunOptions{Context: found, ContextOut: found}); err != nil {
		return nil, fmt.Errorf("look for kernel symbols: %w", err)
	}
	addresses := map[string]uint64{}
	for i, name := range kernelSymbols {
		addresses[name] = found[i]
	}
	return addresses, nil
}

// sleepable is BPF_F_SLEEPABLE, which a program of type syscall must be.
const sleepable = 1 << 4

// lookups writes the address of each symbol into the context, which is an array of them.
func lookups(symbols []string) asm.Instructions {
	const (
		name    = -8 * symbolWords
		address = name - 8
	)
	program := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for i, symbol := range symbols {
		text := make([]byte, 8*symbolWords)
		copy(text, symbol)
		for word := range symbolWords {
			value := int64(binary.NativeEndian.Uint64(text[8*word:]))
			program = append(program, asm.LoadImm(asm.R1, value, asm.DWord),
				asm.StoreMem(asm.R10, int16(name+8*word), asm.R1, asm.DWord))
		}
		program = append(program,
			asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.R10, address, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R10), asm.Add.Imm(asm.R1, name),
			asm.Mov.Imm(asm.R2, int32(len(symbol)+1)),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Reg(asm.R4, asm.R10), asm.Add.Imm(asm.R4, address),
			asm.FnKallsymsLookupName.Call(),
			asm.LoadMem(asm.R1, asm.R10, address, asm.DWord),
			asm.StoreMem(asm.R6, int16(8*i), asm.R1, asm.DWord),
		)
	}
	return append(program, asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// listedAddresses reads them off the list of all symbols.
func listedAddresses(kallsyms string) (map[string]uint64, error) {
	f, err := os.Open(kallsyms)
	if err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	found := map[string]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan() && len(found) < len(kernelSymbols); {
		line := lines.Text()
		name := line[strings.LastIndexByte(line, ' ')+1:]
		if !slices.Contains(kernelSymbols, name) {
			continue
		}
		address, _, _ := strings.Cut(line, " ")
		if found[name], err = strconv.ParseUint(address, 16, 64); err != nil {
			return nil, fmt.Errorf("read kernel symbols: %w", err)
		}
	}
	return found, nil
}
