// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
)

// ErrUnsupported says that this kernel lacks what the backend cannot do without.
var ErrUnsupported = errors.New("BPF-LSM is not usable on this kernel")

// program is one program that is attached and stays.
type program struct {
	name string
	// optional programs are left out where the kernel has no such hook; another one covers for them.
	optional bool
	tracing  bool
}

// attached are the programs in the order in which they are attached: who keeps labels and marks comes
// before who decides.
var attached = []program{
	{name: bpf.MusterProgLabelFork},
	{name: bpf.MusterProgLabelExecBegins},
	{name: bpf.MusterProgLabelExecDone},
	{name: bpf.MusterProgMarkFreed},
	{name: bpf.MusterProgMarkRenamed, tracing: true},
	{name: bpf.MusterProgMarkLinked, tracing: true},
	{name: bpf.MusterProgArgumentsCheck},
	{name: bpf.MusterProgExecCheck},
	{name: bpf.MusterProgCapable},
	{name: bpf.MusterProgMmapFile},
	{name: bpf.MusterProgFileMprotect},
	{name: bpf.MusterProgFileOpen},
	{name: bpf.MusterProgFileTruncate, optional: true}, // from 6.2; before, path_truncate sees ftruncate too
	{name: bpf.MusterProgPathTruncate},
	{name: bpf.MusterProgPathMknod},
	{name: bpf.MusterProgPathMkdir},
	{name: bpf.MusterProgPathRmdir},
	{name: bpf.MusterProgPathUnlink},
	{name: bpf.MusterProgPathSymlink},
	{name: bpf.MusterProgPathLink},
	{name: bpf.MusterProgPathRename},
	{name: bpf.MusterProgPathChmod},
	{name: bpf.MusterProgPathChown},
	{name: bpf.MusterProgSocketCreate},
	{name: bpf.MusterProgSocketBind},
	{name: bpf.MusterProgSocketListen},
	{name: bpf.MusterProgSocketConnect},
	{name: bpf.MusterProgSocketAccept},
	{name: bpf.MusterProgSocketSendmsg},
}

// iterators are run by the agent and attached for the moment only.
var iterators = []string{bpf.MusterProgLabelExisting, bpf.MusterProgLabelMissing, bpf.MusterProgMarkInodes}

// supported are the programs of attached that this kernel has hooks for.
func supported(spec *ebpf.CollectionSpec) ([]program, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("%w: no BTF: %w", ErrUnsupported, err)
	}
	var found []program
	for _, p := range attached {
		hook := spec.Programs[p.name].AttachTo
		if !p.tracing {
			hook = "bpf_lsm_" + hook
		}
		var function *btf.Func
		switch err := kernel.TypeByName(hook, &function); {
		case err == nil:
			found = append(found, p)
		case !p.optional:
			return nil, fmt.Errorf("%w: no hook %s", ErrUnsupported, hook)
		}
	}
	return found, nil
}

// attach attaches one program.
func (p *program) attach(loaded *ebpf.Program) (link.Link, error) {
	if p.tracing {
		return link.AttachTracing(link.TracingOptions{Program: loaded})
	}
	return link.AttachLSM(link.LSMOptions{Program: loaded})
}
