// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"slices"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/automaton"
)

// sourceDirectories lays out the automaton over a source's path that accepts with the class of the directories it
// lies in. The classes stand behind those of the source paths.
func (r *renderer) sourceDirectories(h *bpf.MusterImageHeader) error {
	list := r.ruleset.Directories()
	if len(list) == 0 {
		return nil
	}
	matchers := make([]automaton.Matcher, len(list))
	for i, d := range list {
		matchers[i] = automaton.Matcher{Index: i, Kind: automaton.Directory, Text: d.Path, Recursive: d.Recursive}
	}
	dfas, excluded := automaton.Compile(matchers, automaton.Options{})
	if len(excluded) > 0 || len(dfas) != 1 {
		return fmt.Errorf("%w: %d source directories", ErrUnrenderable, len(list))
	}
	classes := map[string]ref{}
	h.Directories = uint32(writeStates(&r.layout, dfas[0], func(set uint32) ref {
		members := dfas[0].Sets[set]
		if len(members) == 0 {
			return 0
		}
		key := listKey(members)
		if classes[key] == 0 {
			var within []enforce.Directory
			for _, i := range members {
				within = append(within, list[i])
			}
			r.within = append(r.within, within)
			classes[key] = ref(r.withinClass(len(r.within) - 1))
		}
		return classes[key]
	}))
	return nil
}

// withinClass is the class of a source that is known by the directories it lies in.
func (r *renderer) withinClass(n int) uint32 { return marked(len(r.groups)) - 1 + uint32(n) }

// withinExceptions are the rows of a set for the sources known by their directories, by class.
func (r *renderer) withinExceptions(rules []int) []bpf.MusterImageException {
	var list []bpf.MusterImageException
	for n, directories := range r.within {
		if row := r.row(r.resolver.RowWithin(rules, directories)); row != 0 {
			list = append(list, bpf.MusterImageException{Class: r.withinClass(n), Row: uint32(row)})
		}
	}
	return list
}

// calls lays out what is said of every system call, by its number.
func (r *renderer) calls(h *bpf.MusterImageHeader) error {
	groups := r.ruleset.CallGroups()
	if len(groups) == 0 {
		return nil
	}
	at := r.reserveTable(int(bpf.MusterLimitCALLS) / 2)
	h.Calls = uint32(at)
	class := &h.Classes[bpf.MusterClassCLASS_SYSCALLS]
	execs := false
	for _, g := range groups {
		group, err := r.callGroup(&g)
		if err != nil {
			return err
		}
		for _, c := range callNumbers() {
			if !slices.Contains(g.Calls, c.name) {
				continue
			}
			path := c.pathOf()
			*view[bpf.MusterImageCall](r.bytes, at, 8*c.index) = bpf.MusterImageCall{
				Group: uint32(group), Path: path.path, Base: path.base, Flags: uint8(c.callFlags()),
			}
			if path.path > 0 {
				class.Flags |= uint32(bpf.MusterClassFlagCLASS_PATHS)
			}
			if c.callFlags() == bpf.MusterCallFlagCALL_NO_RETURN {
				class.Flags |= uint32(bpf.MusterClassFlagCLASS_STARTS)
			}
			execs = execs || c.callFlags() == bpf.MusterCallFlagCALL_EXEC
		}
	}
	// Whatever started it, a program returns from an execve of its own ABI.
	for _, c := range callNumbers() {
		if call := view[bpf.MusterImageCall](r.bytes, at, 8*c.index); execs && c.name == "execve" {
			call.Flags |= uint8(bpf.MusterCallFlagCALL_EXEC)
		}
	}
	return nil
}

// callGroup lays out what the rules of a group say of a path.
func (r *renderer) callGroup(g *enforce.CallGroup) (ref, error) {
	dfas, excluded := automaton.Compile(g.Paths, automaton.Options{})
	if len(excluded) > 0 || len(dfas) > int(bpf.MusterLimitAUTOMATA) {
		return 0, fmt.Errorf("%w: paths of system calls", ErrUnrenderable)
	}
	var out bpf.MusterImageGroup
	for i, dfa := range dfas {
		out.Start[i] = uint32(writeStates(&r.layout, dfa, func(set uint32) ref { return r.internSet(dfa.Sets[set], 0) }))
	}
	anyPath := uint32(r.internSet(g.Any, 0))
	at := r.reserve(2)
	*view[bpf.MusterImageGroup](r.bytes, at, 0) = out
	view[bpf.MusterImageAny](r.bytes, at+1, 0).Set = anyPath
	return at, nil
}
