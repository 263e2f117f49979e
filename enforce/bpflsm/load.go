// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
)

// programSet is one loading of the programs with their maps.
type programSet struct {
	*ebpf.Collection
	instance uint64
	wanted   []program
	tags     map[string]string
	links    map[string]link.Link
}

// loading says which programs load loads.
type loading struct {
	programs  []program
	iterators bool
	instance  uint64 // see struct settings; a number of its own for a loading that is to replace another
}

// load loads fresh copies of programs, with the maps given or, for those missing, new ones. It ends with ctx: what was
// loaded by then is gone.
func load(ctx context.Context, h *host, maps map[string]*ebpf.Map, ringBytes int, what loading) (*programSet, error) {
	spec := chosen(h.programs, what)
	set := &programSet{instance: what.instance, wanted: what.programs, tags: map[string]string{}, links: map[string]link.Link{}}
	err := set.specialise(spec, h, ringBytes)
	if err != nil {
		return nil, err
	}
	for name, m := range maps {
		spec.Maps[name].MaxEntries = m.MaxEntries() // as they were made; a size is no reason to start anew
	}
	if set.Collection, err = loadEach(ctx, spec, maps, h.types); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	for name, p := range set.Programs {
		info, err := p.Info()
		if err != nil {
			set.Close()
			return nil, fmt.Errorf("read program %s: %w", name, err)
		}
		set.tags[name] = info.Tag
	}
	return set, nil
}

// loadEach makes the maps and loads one program after the other: the kernel takes long to verify one, and who has to end
// must not wait for all of them.
func loadEach(ctx context.Context, spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, types *btf.Cache) (*ebpf.Collection, error) {
	options := ebpf.CollectionOptions{MapReplacements: maps, Cache: types}
	programs := spec.Programs
	spec.Programs = nil
	whole, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, err
	}
	options.MapReplacements = whole.Maps
	spec.Variables = nil // they are in the maps
	for name, program := range programs {
		if err := ctx.Err(); err != nil {
			whole.Close()
			return nil, err
		}
		spec.Programs = map[string]*ebpf.ProgramSpec{name: program}
		one, err := ebpf.NewCollectionWithOptions(spec, options)
		if err != nil {
			whole.Close()
			return nil, err
		}
		whole.Programs[name] = one.Programs[name]
		delete(one.Programs, name)
		one.Close()
	}
	return whole, nil
}

// chosen is a copy of those of all programs that are to be loaded.
func chosen(all *ebpf.CollectionSpec, what loading) *ebpf.CollectionSpec {
	few := *all
	few.Programs = map[string]*ebpf.ProgramSpec{}
	for _, p := range what.programs {
		few.Programs[p.name] = all.Programs[p.name]
	}
	if what.iterators {
		for _, name := range iterators {
			few.Programs[name] = all.Programs[name]
		}
	}
	return few.Copy()
}

// specialise fits the programs to this machine.
func (set *programSet) specialise(spec *ebpf.CollectionSpec, h *host, ringBytes int) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	if err := sizeFor(spec, ringBytes, cpus); err != nil {
		return err
	}
	return errors.Join(
		spec.Variables[bpf.MusterVarRenameLockAddr].Set(h.addresses["rename_lock"]),
		spec.Variables[bpf.MusterVarMountLockAddr].Set(h.addresses["mount_lock"]),
		spec.Variables[bpf.MusterVarInitNsproxyAddr].Set(h.addresses["init_nsproxy"]),
		spec.Variables[bpf.MusterVarInitUserNsAddr].Set(h.addresses["init_user_ns"]),
		spec.Variables[bpf.MusterVarSetattrIdmap].Set(h.setattrIdmap),
		spec.Variables[bpf.MusterVarLsmReturnsChecked].Set(h.returnsChecked),
		spec.Variables[bpf.MusterVarInstance].Set(set.instance),
	)
}

// flowsPerCPU is for machines with many: each CPU keeps some entries of a table of this kind in reserve.
const flowsPerCPU = 1024

// sizeFor fits the maps whose size depends on the machine and the configuration.
func sizeFor(spec *ebpf.CollectionSpec, ringBytes, cpus int) error {
	slots := uint32(cpus) * uint32(bpf.MusterLimitSCRATCH_PER_CPU)
	spec.Maps[bpf.MusterMapScratches].MaxEntries = slots
	spec.Maps[bpf.MusterMapEvents].MaxEntries = uint32(ringBytes)
	spec.Maps[bpf.MusterMapFlows].MaxEntries = max(spec.Maps[bpf.MusterMapFlows].MaxEntries, flowsPerCPU*uint32(cpus))
	return nil
}

// runIterator runs an iterator program once and returns what it wrote.
func runIterator(ctx context.Context, p *ebpf.Program) ([]byte, error) {
	it, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return nil, fmt.Errorf("attach iterator %s: %w", p, err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("run iterator %s: %w", p, err)
	}
	defer r.Close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read iterator %s: %w", p, err)
	}
	return out, nil
}

func randomNumber() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// selfStart is this process's start in ticks, as the kernel side compares it.
func selfStart() (uint64, error) {
	return processStart(os.Getpid())
}

// processStart is a process's.
func processStart(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; starttime is the 20th field behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
