// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/test/bench"
)

// empty attaches a program that only returns 0 to every hook that the engine's own programs are on: the floor
// below which no BPF-LSM agent can be.
type empty struct {
	programs []*ebpf.Program
	links    []link.Link
}

func (e *empty) enter(context.Context) (*bench.Load, error) {
	engine, err := bpf.LoadMuster()
	if err != nil {
		return nil, err
	}
	for name, spec := range engine.Programs {
		// Attached only while a rule of their class asks for them, which no row has.
		if strings.HasPrefix(name, "call_") || strings.HasPrefix(name, "preset_") {
			continue
		}
		if err := e.attach(spec); err != nil {
			return nil, fmt.Errorf("an empty program for %s: %w", name, err)
		}
	}
	if len(e.links) == 0 {
		return nil, errors.New("the engine has no hooks")
	}
	return nil, nil
}

func (e *empty) attach(engine *ebpf.ProgramSpec) error {
	hooked := engine.Type == ebpf.LSM ||
		engine.Type == ebpf.Tracing && (engine.AttachType == ebpf.AttachTraceFExit || engine.AttachType == ebpf.AttachTraceFEntry)
	if !hooked {
		return nil
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: engine.Type, AttachType: engine.AttachType, AttachTo: engine.AttachTo, Flags: engine.Flags,
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		// A hook that this kernel lacks, as file_truncate before 6.2.
		return nil
	}
	if err != nil {
		return err
	}
	e.programs = append(e.programs, program)
	var l link.Link
	if engine.Type == ebpf.LSM {
		l, err = link.AttachLSM(link.LSMOptions{Program: program})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: program, AttachType: engine.AttachType})
	}
	if err != nil {
		return err
	}
	e.links = append(e.links, l)
	return nil
}

func (e *empty) leave(context.Context) error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	for _, p := range e.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
