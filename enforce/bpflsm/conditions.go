// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"slices"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// longestArgument is the longest that the kernel side reads: a longer one counts as not listed.
const longestArgument = int(bpf.MusterLimitPATH_END) - 2

// conditional lays out the rules of one entry that depend on the arguments, and those of policies in dry run that fire
// for any, once.
func (r *renderer) conditional(list []enforce.Conditional, dry []int) ref {
	if len(list)+len(dry) == 0 {
		return 0
	}
	// The same rules have the same arguments.
	rules := make([]int, len(list))
	for i, c := range list {
		rules[i] = c.Rule
	}
	key := listKey(rules) + "/" + listKey(dry)
	if at, ok := r.conditions[key]; ok {
		return at
	}
	conditions := make([]bpf.MusterImageCondition, len(list))
	for i, c := range list {
		conditions[i] = bpf.MusterImageCondition{Priority: c.Priority, Rule: uint32(c.Rule + 1), Args: uint32(r.argumentList(c.Args))}
		switch {
		case c.Priority == 0:
			conditions[i].Rule, conditions[i].Audits = 0, r.audit([]int{c.Rule})
		case c.DryRun:
			conditions[i].Priority |= uint32(bpf.MusterPriorityBitPRIORITY_DRY)
			conditions[i].Rule, conditions[i].Audits = r.dry.fired(c.Rule), r.audit([]int{c.Rule})
		}
	}
	at := r.reserveTable(1 + len(list))
	*view[bpf.MusterImageConditions](r.bytes, at, 0) = r.dryFiring(dry, len(list))
	for i, c := range conditions {
		*view[bpf.MusterImageCondition](r.bytes, at+1+ref(i), 0) = c
	}
	r.conditions[key] = at
	return at
}

// argumentList lays out one allowedArgs as a table of hashes, once.
func (r *renderer) argumentList(args []string) ref {
	var hashes []uint64
	for _, arg := range args {
		if len(arg) <= longestArgument {
			hashes = append(hashes, r.key.hash(arg))
		}
	}
	slices.Sort(hashes)
	hashes = slices.Compact(hashes)
	key := hashList(hashes)
	if at, ok := r.args[key]; ok {
		return at
	}
	places, size := spread(hashes)
	at := r.reserveTable(1 + size)
	view[bpf.MusterImageArgs](r.bytes, at, 0).Mask = uint32(size - 1)
	for i, place := range places {
		*view[bpf.MusterImageSource](r.bytes, at+1+ref(place), 0) = bpf.MusterImageSource{Hash: hashes[i], Class: 1}
	}
	r.args[key] = at
	return at
}
