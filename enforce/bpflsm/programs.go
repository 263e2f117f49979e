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
	// arguments is how many the hook has to have, where that is not the same on all kernels.
	arguments int
	// cgroup programs are attached to the topmost control group: packets are theirs.
	cgroup bool
	egress bool
}

// attached are the programs in the order in which they are attached: who keeps labels and marks comes
// before who decides.
var attached = []program{
	{name: bpf.OlderProgTaskFreed}, // 5.10 alone; before who labels, or a label could outlive its thread
	{name: bpf.MusterProgLabelFork},
	{name: bpf.MusterProgLabelExecBegins},
	{name: bpf.MusterProgLabelExecDone},
	{name: bpf.MusterProgMarkFreed},
	{name: bpf.MusterProgMarkRenamed, tracing: true},
	{name: bpf.MusterProgMarkLinked, tracing: true},
	{name: bpf.MusterProgArgumentsCheck, demand: demandArguments},
	{name: bpf.MusterProgExecCheck},
	{name: bpf.MusterProgCapable, demand: demandCapabilities},
	{name: bpf.MusterProgMmapFile},
	{name: bpf.MusterProgFileMprotect, demand: demandProcess | demandFiles},
	{name: bpf.MusterProgFileOpen, demand: demandProcess | demandNames},
	{name: bpf.MusterProgWriteBeginsOn, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteBeginsTo, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteEndsOn, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgWriteEndsTo, tracing: true, demand: demandFiles},
	{name: bpf.MusterProgInodeSetxattr, demand: demandFiles},
	{name: bpf.MusterProgInodeRemovexattr, demand: demandFiles},
	{name: bpf.MusterProgInodeSetAcl, optional: true, demand: demandFiles}, // from 6.2; before, inode_setxattr sees lists too
	{name: bpf.MusterProgInodeRemoveAcl, optional: true, demand: demandFiles},
	{name: bpf.MusterProgInodeSetattr, optional: true, arguments: 3, demand: demandFiles},         // from 6.9
	{name: bpf.MusterProgInodeSetattrUnmapped, optional: true, arguments: 2, demand: demandFiles}, // before
	{name: bpf.MusterProgBelowCreate, demand: demandFiles},
	{name: bpf.MusterProgBelowMknod, demand: demandFiles},
	{name: bpf.MusterProgBelowMkdir, demand: demandFiles},
	{name: bpf.MusterProgBelowRmdir, demand: demandFiles},
	{name: bpf.MusterProgBelowSymlink, demand: demandFiles},
	{name: bpf.MusterProgBelowLink, demand: demandFiles},
	{name: bpf.MusterProgBelowRename, demand: demandFiles},
	{name: bpf.MusterProgInodeUnlink, demand: demandNames},
	{name: bpf.OlderProgClearUnlinked, demand: demandNames}, // 5.10 alone, in the place of all since below_create
	{name: bpf.MusterProgFileIoctl, demand: demandFiles},
	{name: bpf.MusterProgFileIoctlCompat, optional: true, demand: demandFiles}, // kernels without it ask file_ioctl
	{name: bpf.MusterProgFilePermission, demand: demandFiles},
	{name: bpf.MusterProgFileReceive, demand: demandFiles},
	{name: bpf.MusterProgFileTruncate, optional: true, demand: demandNames}, // from 6.2; before, path_truncate sees ftruncate too
	{name: bpf.MusterProgPathTruncate, demand: demandNames},
	{name: bpf.MusterProgPathMknod, demand: demandNames},
	{name: bpf.MusterProgPathMkdir, demand: demandNames},
	{name: bpf.MusterProgPathRmdir, demand: demandNames},
	{name: bpf.MusterProgPathUnlink, demand: demandNames},
	{name: bpf.MusterProgPathSymlink, demand: demandNames | demandMoves},
	{name: bpf.MusterProgPathLink, demand: demandNames | demandMoves},
	{name: bpf.MusterProgPathRename, demand: demandNames | demandMoves},
	{name: bpf.MusterProgPathChmod, demand: demandNames},
	{name: bpf.MusterProgPathChown, demand: demandNames},
	{name: bpf.MusterProgSocketCreate, demand: demandSockets},
	{name: bpf.MusterProgSocketBind, demand: demandSockets},
	{name: bpf.MusterProgSocketListen, demand: demandSockets | demandQueries | demandFlows},
	{name: bpf.MusterProgSocketConnect, demand: demandSockets | demandQueries | demandFlows},
	{name: bpf.MusterProgSocketAccept, demand: demandSockets},
	{name: bpf.MusterProgSocketSendmsg, demand: demandSockets | demandQueries | demandFlows},
	{name: bpf.MusterProgCallStarts, tracing: true, demand: demandStarts},
	{name: bpf.MusterProgCallFollowedEmpty, tracing: true, optional: true, demand: demandPaths}, // before 6.12
	{name: bpf.MusterProgCallFollowed, tracing: true, optional: true, demand: demandPaths},      // from 6.12
	{name: bpf.MusterProgCallLookedUp, tracing: true, demand: demandPaths},
	{name: bpf.MusterProgCallOpened, tracing: true, optional: true, demand: demandPaths},     // before 7
	{name: bpf.MusterProgCallOpenedFile, tracing: true, optional: true, demand: demandPaths}, // from 7
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
	{name: bpf.MusterProgPacketOut, cgroup: true, egress: true, demand: demandQueries | demandFlows},
	{name: bpf.MusterProgPacketIn, cgroup: true, demand: demandFlows},
	// What keeps others from detaching comes last: whoever attaches is the agent by then.
	{name: bpf.MusterProgSelfFork, demand: demandSelf},
	{name: bpf.MusterProgSelfExec, demand: demandSelf},
	{name: bpf.MusterProgSelfJoin, tracing: true, demand: demandSelf},
	{name: bpf.MusterProgSelfMap, demand: demandSelf},
	{name: bpf.MusterProgSelfProgram, demand: demandSelf},
	{name: bpf.MusterProgSelfCommand, demand: demandSelf},
	{name: bpf.MusterProgSelfLockedDown, demand: demandSelf},
	{name: bpf.MusterProgSelfPtrace, demand: demandSelf},
	{name: bpf.MusterProgSelfKill, demand: demandSelf},
	{name: bpf.MusterProgSelfSigio, demand: demandSelf},
	{name: bpf.MusterProgSelfRlimit, demand: demandSelf},
	{name: bpf.MusterProgSelfCreate, demand: demandSelf},
	{name: bpf.MusterProgSelfMkdir, demand: demandSelf},
	{name: bpf.MusterProgSelfMknod, demand: demandSelf},
	{name: bpf.MusterProgSelfSymlink, demand: demandSelf},
	{name: bpf.MusterProgSelfLink, demand: demandSelf},
	{name: bpf.MusterProgSelfUnlink, demand: demandSelf},
	{name: bpf.MusterProgSelfRmdir, demand: demandSelf},
	{name: bpf.MusterProgSelfRename, demand: demandSelf},
	{name: bpf.MusterProgSelfSetattr, demand: demandSelf},
	{name: bpf.MusterProgSelfOpen, demand: demandSelf},
	{name: bpf.MusterProgSelfLock, demand: demandSelf},
	{name: bpf.MusterProgSelfMount, demand: demandSelf},
	{name: bpf.MusterProgSelfMove, demand: demandSelf},
	{name: bpf.MusterProgSelfUmount, demand: demandSelf},
	{name: bpf.MusterProgSelfPivot, demand: demandSelf},
}

// iterators are run by the agent and attached for the moment only.
var iterators = []string{bpf.MusterProgLabelExisting, bpf.MusterProgLabelMissing, bpf.MusterProgMarkInodes}

// host is what the programs need to know of the machine, which does not change while it runs.
type host struct {
	hooks     map[string]bool // that it has, by the programs that are for them
	addresses map[string]uint64
	// programs are those that are made for this kernel.
	programs *ebpf.CollectionSpec
	// setattrIdmap is 1 where the hook inode_setattr begins with an id map, else 0.
	setattrIdmap uint64
	// returnsChecked is 1 where the verifier knows what a program of a security hook may return, else 0.
	returnsChecked uint64
	// types are the kernel's, which take some megabytes: see forget.
	types *btf.Cache
}

// readHost finds that out; programs are those for kernels of today. It takes a while: the kernel's types and its symbols are some megabytes each.
func readHost(programs *ebpf.CollectionSpec) (*host, error) {
	types := btf.NewCache()
	kernel, err := types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("%w: no BTF: %w", ErrUnsupported, err)
	}
	if programs, err = programsFor(kernel, programs); err != nil {
		return nil, err
	}
	hooks, err := readHooks(kernel, programs)
	if err != nil {
		return nil, err
	}
	addresses, err := kernelAddresses()
	if err != nil {
		return nil, err
	}
	idmap, err := setattrIdmap(kernel)
	if err != nil {
		return nil, err
	}
	return &host{
		hooks: hooks, addresses: addresses, programs: programs, types: types,
		setattrIdmap: idmap, returnsChecked: returnsChecked(kernel),
	}, nil
}

// programsFor takes those of the built-in programs that are made for this kernel.
func programsFor(kernel *btf.Spec, newest *ebpf.CollectionSpec) (*ebpf.CollectionSpec, error) {
	if isOlder() {
		return builtIn()
	}
	cast, err := hasFunction(kernel, bpf.Cast)
	if err != nil || cast {
		return newest, err
	}
	probing, err := bpf.LoadProbing()
	if err != nil {
		return nil, fmt.Errorf("read the built-in programs: %w", err)
	}
	return probing, nil
}

// forget gives back the memory that is needed to load programs. What is loaded later reads the kernel's types again.
func (h *host) forget() {
	h.types = btf.NewCache()
}

// returnsChecked looks for what the verifier asks for the range of a hook's answers: from 6.12.
func returnsChecked(kernel *btf.Spec) uint64 {
	var answers *btf.Func
	if kernel.TypeByName("bpf_lsm_get_retval_range", &answers) != nil {
		return 0 // it is not there, or not known: then nobody else loads such programs
	}
	return 1
}

// setattrIdmap looks how many arguments the hook inode_setattr has: one more from 6.9.
func setattrIdmap(kernel *btf.Spec) (uint64, error) {
	var hook *btf.Func
	if err := kernel.TypeByName("bpf_lsm_inode_setattr", &hook); err != nil {
		return 0, fmt.Errorf("look for the hook inode_setattr: %w", err)
	}
	if proto, is := hook.Type.(*btf.FuncProto); is && len(proto.Params) > 2 {
		return 1, nil
	}
	return 0, nil
}

func (b *Backend) host() (*host, error) {
	if b.machine == nil {
		h, err := readHost(b.spec)
		if err != nil {
			return nil, err
		}
		b.spec = h.programs
		b.machine = h
	}
	return b.machine, nil
}

// supported are the programs of attached that are always there or in demand, and that this kernel has hooks for.
func (h *host) supported(wanted demand) ([]program, error) {
	var found []program
	for _, p := range attached {
		switch {
		case p.demand != 0 && p.demand&wanted == 0:
		case h.hooks[p.name]:
			found = append(found, p)
		case !p.optional && h.programs.Programs[p.name] != nil:
			return nil, fmt.Errorf("%w: no hook for %s", ErrUnsupported, p.name)
		}
	}
	return found, nil
}

// hasHook says whether the kernel has what a program is to be attached to, with that many arguments if any are given.
func hasHook(kernel *btf.Spec, p *ebpf.ProgramSpec, arguments int) (bool, error) {
	if p.AttachType == ebpf.AttachTraceRawTp {
		var tracepoint *btf.Typedef
		return found(hookName(p), kernel.TypeByName(hookName(p), &tracepoint))
	}
	if arguments == 0 {
		return hasFunction(kernel, hookName(p))
	}
	var function *btf.Func
	there, err := found(hookName(p), kernel.TypeByName(hookName(p), &function))
	if !there || err != nil {
		return false, err
	}
	prototype, ok := function.Type.(*btf.FuncProto)
	return ok && len(prototype.Params) == arguments, nil
}

func hasFunction(kernel *btf.Spec, name string) (bool, error) {
	var function *btf.Func
	return found(name, kernel.TypeByName(name, &function))
}

func found(name string, err error) (bool, error) {
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return false, fmt.Errorf("look for %s: %w", name, err)
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
