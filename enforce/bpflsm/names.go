// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"slices"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// numbers are the numbers that the kernel side knows the objects of a class by.
var numbers = map[policies.Class]map[string]int{
	policies.ClassNetwork: {
		"tcp": int(bpf.MusterProtocolPROTOCOL_TCP), "udp": int(bpf.MusterProtocolPROTOCOL_UDP),
		"icmp": int(bpf.MusterProtocolPROTOCOL_ICMP), "icmpv6": int(bpf.MusterProtocolPROTOCOL_ICMPV6),
		"sctp": int(bpf.MusterProtocolPROTOCOL_SCTP), "dccp": int(bpf.MusterProtocolPROTOCOL_DCCP),
		"raw": int(bpf.MusterProtocolPROTOCOL_RAW), "packet": int(bpf.MusterProtocolPROTOCOL_PACKET),
		"stream": int(bpf.MusterProtocolPROTOCOL_STREAM), "dgram": int(bpf.MusterProtocolPROTOCOL_DGRAM),
		"seqpacket": int(bpf.MusterProtocolPROTOCOL_SEQPACKET), "rdm": int(bpf.MusterProtocolPROTOCOL_RDM),
		"all": int(bpf.MusterProtocolPROTOCOL_ALL),
	},
	policies.ClassCapabilities: capabilityNumbers(),
	policies.ClassPreset: {
		"filelessExec": int(bpf.MusterPresetPRESET_FILELESS), "anonymousMapExec": int(bpf.MusterPresetPRESET_ANONYMOUS),
		"protectEnv": int(bpf.MusterPresetPRESET_ENVIRON), "protectProc": int(bpf.MusterPresetPRESET_PROC),
	},
}

// presetFlags say which hooks a preset needs.
var presetFlags = map[string]bpf.MusterClassFlag{
	"filelessExec": bpf.MusterClassFlagCLASS_PRESET_EXEC, "anonymousMapExec": bpf.MusterClassFlagCLASS_PRESET_MAP,
	"protectEnv": bpf.MusterClassFlagCLASS_PRESET_OPEN, "protectProc": bpf.MusterClassFlagCLASS_PRESET_OPEN,
}

// firstNamed is the first of the classes of numbers that have concerns; the other follows it.
const firstNamed = int(bpf.MusterClassCLASS_NETWORK)

// isNamed says whether the objects of a class, by its number, are known by numbers.
func isNamed(class int) bool {
	return class >= firstNamed && class < firstNamed+int(bpf.MusterLimitNAMED_CLASSES)
}

// capabilityNumbers are the kernel's own.
func capabilityNumbers() map[string]int {
	found := map[string]int{}
	for n, name := range policies.Capabilities() {
		found[name] = n
	}
	return found
}

// nameOf is the name that a class's number stands for, "" for none.
func nameOf(class policies.Class, number int) string {
	for name, n := range numbers[class] {
		if n == number {
			return name
		}
	}
	return ""
}

// numbers lays out the table from a number to the rules that name it.
func (r *renderer) numbers(class int, c *bpf.MusterImageClass) error {
	sets := map[int][]int{}
	for name, set := range r.ruleset.NameSets(classes[class]) {
		n, ok := numbers[classes[class]][name]
		if !ok {
			return fmt.Errorf("%w: %s %q has no number", ErrUnrenderable, classes[class], name)
		}
		sets[n] = set
		c.Flags |= uint32(presetFlags[name])
		c.NameCount = max(c.NameCount, uint32(n+1))
	}
	refs := make([]ref, c.NameCount)
	for n := range refs {
		refs[n] = r.internSet(sets[n], 0)
	}
	if len(refs) == 0 {
		return nil
	}
	at := r.reserveTable((len(refs) + 3) / 4)
	c.Names = uint32(at)
	for n, set := range refs {
		*view[uint32](r.bytes, at, 4*n) = uint32(set)
	}
	if class < firstNamed+len(r.named) {
		r.named[class-firstNamed] = sets
	}
	return nil
}

// concerns says for every source class which numbers any rule speaks of: the hooks ask no further about the
// others. Under an allow-list every number counts.
func (r *renderer) concerns(h *bpf.MusterImageHeader) {
	if !slices.ContainsFunc(r.named[:], func(sets map[int][]int) bool { return len(sets) > 0 }) {
		return
	}
	n := 1 + 2*len(r.groups)
	at := r.reserveTable(n)
	h.Concerns = uint32(at)
	r.concern(at, enforce.NoSource, false)
	for g, source := range r.groups {
		r.concern(at+ref(named(g)), source, false)
		r.concern(at+ref(marked(g)), source, true)
	}
}

func (r *renderer) concern(at ref, source enforce.SourceClass, byMark bool) {
	var c bpf.MusterImageConcern
	for i, sets := range r.named {
		class := classes[firstNamed+i]
		if r.resolver.AllowList(class, source) || len(r.resolver.DryLists(class, source)) > 0 {
			c.Names[i] = ^uint64(0)
		}
		for n, set := range sets {
			if says(r.resolver.Row(set, source, byMark)) {
				c.Names[i] |= 1 << n
			}
		}
	}
	*view[bpf.MusterImageConcern](r.bytes, at, 0) = c
}

// says tells whether anything fires in a row.
func says(row enforce.Row) bool {
	return slices.ContainsFunc(row[:], func(e enforce.Entry) bool { return e.Priority != 0 || len(e.Audits)+len(e.Dry) > 0 })
}
