// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// The names of features. A hook that only some kernels have is one as well, by its own name.
const (
	FeatureLSM   = "lsm"      // BPF is among the active security modules
	FeatureLoop  = "bpf_loop" // the helper, from Linux 5.17
	FeatureHooks = "hooks"    // everything is there that a program may be attached to and no other covers for
)

// Features tells what the running kernel has of what this backend cannot do without, by name: what Usable goes by, told for a
// person. Like Usable it loads one program of two instructions, which is attached nowhere.
func Features() (map[string]bool, error) {
	loop, err := haveLoop()
	if err != nil {
		return nil, err
	}
	return map[string]bool{FeatureLSM: activeLSM() == nil, FeatureLoop: loop}, nil
}

// Features tells, beside that, which hooks there are. The kernel's types take some megabytes to read; a backend reads them
// in any case, and once.
func (b *Backend) Features() (map[string]bool, error) {
	found, err := Features()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := b.host()
	if err != nil {
		return nil, err
	}
	found[FeatureHooks] = true
	for _, p := range attached {
		if b.spec.Programs[p.name] == nil {
			continue
		}
		if p.optional {
			name := hookName(b.spec.Programs[p.name])
			found[name] = found[name] || h.hooks[p.name] // one of several programs for it is enough
		} else if !h.hooks[p.name] {
			found[FeatureHooks] = false
		}
	}
	return found, nil
}

// readHooks says which programs the kernel has hooks for. Packets need none.
func readHooks(kernel *btf.Spec, spec *ebpf.CollectionSpec) (map[string]bool, error) {
	var err error
	hooks := map[string]bool{}
	for _, p := range attached {
		if spec.Programs[p.name] == nil {
			continue // not among those for this kernel
		}
		if hooks[p.name] = p.cgroup; p.cgroup {
			continue
		}
		if hooks[p.name], err = hasHook(kernel, spec.Programs[p.name], p.arguments); err != nil {
			return nil, err
		}
	}
	return hooks, nil
}

// hookName is how the kernel's types call what a program is attached to.
func hookName(p *ebpf.ProgramSpec) string {
	switch {
	case p.Type == ebpf.LSM:
		return "bpf_lsm_" + p.AttachTo
	case p.AttachType == ebpf.AttachTraceRawTp:
		return "btf_trace_" + p.AttachTo
	default:
		return p.AttachTo
	}
}
