// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// demand says which programs are needed: bits. What no ruleset asks for is not attached: it would cost something at every
// operation, and attaching it does.
type demand uint32

const (
	demandCalls        demand = 1 << iota // some rule is of class syscalls
	demandStarts                          // it names a call that never returns
	demandPaths                           // it names a call that takes a path
	demandPresetExec                      // some preset is about what is run
	demandPresetMap                       // … about executable memory
	demandPresetOpen                      // … about what is opened
	demandProcess                         // some rule is of class process, or it is visible
	demandArguments                       // it depends on arguments
	demandNames                           // some rule is of class file, or it is visible: names are judged
	demandFiles                           // some rule is of class file: reads are judged, too, and changes of attributes
	demandMoves                           // some name is protected, or a source's: it is watched which file gets it
	demandCapabilities                    // some rule is of class capabilities, or it is visible
	demandSockets                         // … of class network
	demandQueries                         // … of class dns
	demandFlows                           // … of the classes ingress and egress
	demandSelf                            // self-protection is on, whatever the ruleset
	demandEnd

	everyDemand = demandEnd - 1
)

// demandFlags are what the classes of an image say of themselves.
var demandFlags = map[bpf.MusterClass]map[bpf.MusterClassFlag]demand{
	bpf.MusterClassCLASS_SYSCALLS: {
		bpf.MusterClassFlagCLASS_HAS_RULES: demandCalls, bpf.MusterClassFlagCLASS_STARTS: demandStarts,
		bpf.MusterClassFlagCLASS_PATHS: demandPaths,
	},
	bpf.MusterClassCLASS_PRESET: presetDemand,
	bpf.MusterClassCLASS_PROCESS: {
		bpf.MusterClassFlagCLASS_HAS_RULES: demandProcess, bpf.MusterClassFlagCLASS_VISIBLE: demandProcess,
		bpf.MusterClassFlagCLASS_ARGUMENTS: demandArguments,
	},
	bpf.MusterClassCLASS_FILE: {
		bpf.MusterClassFlagCLASS_HAS_RULES: demandNames | demandFiles, bpf.MusterClassFlagCLASS_VISIBLE: demandNames,
		bpf.MusterClassFlagCLASS_WATCHES: demandMoves,
	},
	bpf.MusterClassCLASS_CAPABILITIES: whenUsed(demandCapabilities),
	bpf.MusterClassCLASS_NETWORK:      whenUsed(demandSockets),
	bpf.MusterClassCLASS_DNS:          whenUsed(demandQueries),
	bpf.MusterClassCLASS_INGRESS:      whenUsed(demandFlows),
	bpf.MusterClassCLASS_EGRESS:       whenUsed(demandFlows),
}

// whenUsed is what a class needs whether it has rules or is visible.
func whenUsed(d demand) map[bpf.MusterClassFlag]demand {
	return map[bpf.MusterClassFlag]demand{
		bpf.MusterClassFlagCLASS_HAS_RULES: d, bpf.MusterClassFlagCLASS_VISIBLE: d,
	}
}

var presetDemand = map[bpf.MusterClassFlag]demand{
	bpf.MusterClassFlagCLASS_PRESET_EXEC: demandPresetExec, bpf.MusterClassFlagCLASS_PRESET_MAP: demandPresetMap,
	bpf.MusterClassFlagCLASS_PRESET_OPEN: demandPresetOpen,
}

// demandOf is what rulesets need: what their images will say of themselves.
func demandOf(list []*enforce.Ruleset) demand {
	var found demand
	for _, rs := range list {
		for i := range rs.Rules {
			found |= demandOfRule(&rs.Rules[i].Rule)
		}
		for _, class := range rs.Visible {
			found |= demandFlags[classNumber(class)][bpf.MusterClassFlagCLASS_VISIBLE]
		}
		if watches(rs) {
			found |= demandMoves
		}
	}
	return found
}

func demandOfRule(r *policies.Rule) demand {
	found := demandFlags[classNumber(r.Class)][bpf.MusterClassFlagCLASS_HAS_RULES]
	switch r.Class {
	case policies.ClassSyscalls:
		found |= demandOfCalls(r.Object.Syscalls)
	case policies.ClassProcess:
		if r.HasArgs {
			found |= demandArguments
		}
	case policies.ClassPreset:
		found |= presetDemand[presetFlags[r.Object.Value]]
	}
	return found
}

func classNumber(class policies.Class) bpf.MusterClass {
	return bpf.MusterClass(slices.Index(classes[:], class))
}

func demandOfCalls(names []string) demand {
	var found demand
	for _, name := range names {
		c := callNumber{name: name}
		if c.pathOf().path > 0 {
			found |= demandPaths
		}
		if c.callFlags() == bpf.MusterCallFlagCALL_NO_RETURN {
			found |= demandStarts
		}
	}
	return found
}

// demanded is what the image in force needs, by its own word: an agent that starts knows no ruleset yet, and what
// another one needs comes with that one. What this agent brought into force counts as well: when somebody took it out of
// its slot, the programs that it needs are not idle.
func (b *Backend) demanded() (demand, error) {
	slots := b.maps[bpf.MusterMapSlots]
	if slots == nil {
		pinned, err := b.pins.openMap(bpf.MusterMapSlots)
		if pinned == nil || err != nil {
			return b.needed, err
		}
		defer pinned.Close()
		slots = pinned
	}
	h, err := publishedHeader(slots)
	if h == nil || err != nil {
		return b.needed, err
	}
	return b.needed | demandOfImage(h), nil
}

func demandOfImage(h *bpf.MusterImageHeader) demand {
	var found demand
	for class, flags := range demandFlags {
		for flag, d := range flags {
			if h.Classes[class].Flags&uint32(flag) != 0 {
				found |= d
			}
		}
	}
	return found
}

// provide attaches what is in demand and not there, before the ruleset that needs it comes into force. The programs
// speak with the loading that is attached already.
func (b *Backend) provide(ctx context.Context, wanted demand) error {
	if wanted == 0 {
		return nil
	}
	programs, tags, err := b.reference(wanted)
	if err != nil {
		return err
	}
	var missing []program
	for _, p := range programs {
		if p.demand == 0 {
			continue
		}
		condition, err := b.linkCondition(p, tags[p.name])
		if err != nil {
			return err
		}
		if condition != "" {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	b.around = nil // names may have gone unfollowed
	s, err := b.settings()
	if err != nil {
		return err
	}
	h, err := b.host()
	if err != nil {
		return err
	}
	set, err := load(ctx, h, b.maps, b.ringBytes, loading{programs: missing, instance: s.Instance})
	if err != nil {
		return err
	}
	defer set.close() // the pins keep the links
	if err := b.pinAside(ctx, set); err != nil {
		return err
	}
	if err := b.pinOver(set); err != nil {
		return err
	}
	return set.change(func(s *bpf.MusterSettings) {
		for i, p := range attached {
			if tag, err := strconv.ParseUint(set.tags[p.name], 16, 64); err == nil {
				s.Tags[i] = tag
			}
		}
		settled := *s
		b.settled = &settled
	})
}

// retire detaches what is no longer in demand, after the ruleset that needed it is gone.
func (b *Backend) retire(wanted demand) error {
	var all error
	for _, p := range attached {
		if p.demand == 0 || p.demand&wanted != 0 {
			continue
		}
		if err := os.Remove(b.pins.linkPath(p.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, fmt.Errorf("unpin link %s: %w", p.name, err))
		}
		if b.loaded != nil && b.loaded.links[p.name] != nil {
			_ = b.loaded.links[p.name].Close()
			delete(b.loaded.links, p.name)
		}
	}
	return all
}

// observeIdle reports links that nothing needs: every system call would pay for them.
func (b *Backend) observeIdle(state *enforce.State, wanted demand) error {
	for _, p := range attached {
		if p.demand == 0 || p.demand&wanted != 0 {
			continue
		}
		l, err := b.pins.openLink(p.name)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		_ = l.Close()
		state.Components = append(state.Components, enforce.Component{
			Kind: "link", Name: p.name, Condition: enforce.DriftExtra, Detail: "no rule needs " + b.pins.linkPath(p.name),
		})
	}
	return nil
}
