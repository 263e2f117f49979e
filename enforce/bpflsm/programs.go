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
	// demand is what must be asked of the kernel for the program to be attached; none: always.
	demand demand
	// cgroup programs are attached to the topmost control group: packets are theirs.
	cgroup bool
	egress bool
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
	{name: bpf.MusterProgWriteBeginsOn, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteBeginsTo, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteEndsOn, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteEndsTo, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgInodeSetxattr, demand: demandFiles},
	{name: bpf.MusterProgInodeRemovexattr, demand: demandFiles},
	{name: bpf.MusterProgInodeSetAcl, optional: true, demand: demandFiles}, // from 6.2; before, inode_setxattr sees lists too
	{name: bpf.MusterProgInodeRemoveAcl, optional: true, demand: demandFiles},
	{name: bpf.MusterProgFilePermission, demand: demandFiles},
	{name: bpf.MusterProgFileReceive, demand: demandFiles},
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
	{name: bpf.MusterProgCallStarts, tracing: true, demand: demandStarts},
	{name: bpf.MusterProgCallFollowedEmpty, tracing: true, optional: true, demand: demandPaths}, // before 6.12
	{name: bpf.MusterProgCallFollowed, tracing: true, optional: true, demand: demandPaths},      // from 6.12
	{name: bpf.MusterProgCallLookedUp, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallOpened, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallUnlinks, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallRmdirs, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallMkdirs, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallMknods, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallSymlinks, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallLinks, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallRenames, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallReturns, tracing: true, demand: demandCalls},
	{name: bpf.MusterProgPresetExec, demand: demandPresetExec},
	{name: bpf.MusterProgPresetMap, demand: demandPresetMap},
	{name: bpf.MusterProgPresetProtect, demand: demandPresetMap},
	{name: bpf.MusterProgPresetOpen, demand: demandPresetOpen},
	{name: bpf.MusterProgPacketOut, cgroup: true, egress: true},
	{name: bpf.MusterProgPacketIn, cgroup: true},
}

// iterators are run by the agent and attached for the moment only.
var iterators = []string{bpf.MusterProgLabelExisting, bpf.MusterProgLabelMissing, bpf.MusterProgMarkInodes}

// supported are the programs of attached that are always there or in demand, and that this kernel has hooks for.
func supported(spec *ebpf.CollectionSpec, wanted demand) ([]program, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("%w: no BTF: %w", ErrUnsupported, err)
	}
	var found []program
	for _, p := range attached {
		if p.demand != 0 && p.demand&wanted == 0 {
			continue
		}
		if p.cgroup {
			found = append(found, p)
			continue
		}
		switch has, err := hasHook(kernel, spec.Programs[p.name]); {
		case err != nil:
			return nil, err
		case has:
			found = append(found, p)
		case !p.optional:
			return nil, fmt.Errorf("%w: no hook %s", ErrUnsupported, spec.Programs[p.name].AttachTo)
		}
	}
	return found, nil
}

// hasHook says whether the kernel has what a program is to be attached to.
func hasHook(kernel *btf.Spec, p *ebpf.ProgramSpec) (bool, error) {
	var err error
	switch {
	case p.Type == ebpf.LSM:
		var hook *btf.Func
		err = kernel.TypeByName("bpf_lsm_"+p.AttachTo, &hook)
	case p.AttachType == ebpf.AttachTraceRawTp:
		var tracepoint *btf.Typedef
		err = kernel.TypeByName("btf_trace_"+p.AttachTo, &tracepoint)
	default:
		var function *btf.Func
		err = kernel.TypeByName(p.AttachTo, &function)
	}
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return false, fmt.Errorf("look for the hook %s: %w", p.AttachTo, err)
	}
	return err == nil, nil
}

// attach attaches one program.
func (p *program) attach(loaded *ebpf.Program) (link.Link, error) {
	if p.cgroup {
		root, err := cgroupRoot(mountTable)
		if err != nil {
			return nil, err
		}
		at := ebpf.AttachCGroupInetIngress
		if p.egress {
			at = ebpf.AttachCGroupInetEgress
		}
		return link.AttachCgroup(link.CgroupOptions{Path: root, Attach: at, Program: loaded})
	}
	if p.tracing {
		return link.AttachTracing(link.TracingOptions{Program: loaded})
	}
	return link.AttachLSM(link.LSMOptions{Program: loaded})
}
