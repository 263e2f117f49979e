// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"slices"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// postureBits is how many each class has in a record of postures.
const postureBits = 4

// dryPolicies are the bits of the policies in dry run. All that have none of their own share the last one, which never
// counts as fired: of these the kernel tells more than needs be, and the reader of its events sorts it out.
type dryPolicies struct {
	ruleset *enforce.Ruleset
	bits    map[policies.ID]uint32
}

const sharedDryBit = 1 << 31

func newDryPolicies(rs *enforce.Ruleset) dryPolicies {
	d := dryPolicies{ruleset: rs, bits: map[policies.ID]uint32{}}
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if _, known := d.bits[r.Policy]; r.DryRun && !known {
			d.bits[r.Policy] = 1 << min(len(d.bits), 31)
		}
	}
	return d
}

// bit is that of the policy of a rule.
func (d *dryPolicies) bit(rule int) uint32 { return d.bits[d.ruleset.Rules[rule].Policy] }

// fired is the bit that says that the rule fires.
func (d *dryPolicies) fired(rule int) uint32 { return d.bit(rule) &^ sharedDryBit }

// dryFiring is the head of a list of conditions, with the rules in dry run that fire for any arguments.
func (r *renderer) dryFiring(rules []int, conditions int) bpf.MusterImageConditions {
	head := bpf.MusterImageConditions{Count: uint32(conditions), Dry: r.audit(rules)}
	for _, n := range rules {
		head.Policies |= r.dry.fired(n)
		if r.ruleset.Rules[n].Rule.Action == policies.ActionBlock {
			head.Priority = max(head.Priority, r.ruleset.DryPriority(n))
		}
	}
	return head
}

// dryPostures lays out the allow-lists of policies in dry run that hold for a source.
func (r *renderer) dryPostures(h *bpf.MusterImageHeader, p *bpf.MusterImagePosture, source enforce.SourceClass) {
	var lists [bpf.MusterClassCLASSES]bpf.MusterImageDry
	for c := range classes {
		makers := r.resolver.DryLists(classes[c], source)
		if len(makers) == 0 {
			continue
		}
		h.Classes[c].Flags |= uint32(bpf.MusterClassFlagCLASS_POSTURE)
		p.Classes |= uint64(bpf.MusterPosturePOSTURE_DRY) << (postureBits * c)
		inverse := make([]int, len(makers))
		for i, n := range makers {
			lists[c].Policies |= r.dry.bit(n)
			inverse[i] = ^n
		}
		lists[c].List = r.audit(inverse)
	}
	if lists == [bpf.MusterClassCLASSES]bpf.MusterImageDry{} {
		return
	}
	at, known := r.dryLists[lists]
	if !known {
		at = r.reserveTable((len(lists) + 1) / 2)
		for c := range lists {
			*view[bpf.MusterImageDry](r.bytes, at, unitBytes/2*c) = lists[c]
		}
		r.dryLists[lists] = at
	}
	p.Dry = uint32(at)
}

// foundRules are the rules that the lists of an event name.
type foundRules struct {
	audits  []int
	dryRuns []enforce.DryRun
}

// lists takes the lists of an event apart: those of dry runs stand by the object that they are about.
func (image *Image) lists(numbers []uint32, flags bpf.MusterEventFlag) (foundRules, error) {
	const (
		dry     = uint32(bpf.MusterListBitLIST_DRY)
		decided = uint32(bpf.MusterListBitLIST_DECIDED)
	)
	var audits [][]int
	var about []int
	var runs [][]enforce.DryRun
	for _, n := range numbers {
		if n&decided != 0 {
			list, err := image.dryRuns(n&^decided, about)
			if err != nil {
				return foundRules{}, err
			}
			runs, about = append(runs, list), nil
			continue
		}
		if int(n&^dry) >= len(image.Audits) {
			return foundRules{}, errUnknownRuleset
		}
		list := image.Audits[n&^dry]
		switch {
		case n&dry != 0:
			about = append(about, list...)
		case slices.ContainsFunc(list, func(n int) bool { return n < 0 }):
			return foundRules{}, errUnknownRuleset // a list of dry runs that does not say so: no program wrote this
		case n > 0:
			audits = append(audits, list)
		}
	}
	f := foundRules{audits: image.ruleset.MergeAudits(audits...)}
	if flags&bpf.MusterEventFlagEVENT_DRY != 0 {
		f.dryRuns = image.ruleset.MergeDryRuns(runs...)
	}
	return f, nil
}

// dryRuns is what the lists about one object come to.
func (image *Image) dryRuns(decided uint32, about []int) ([]enforce.DryRun, error) {
	if decided == uint32(bpf.MusterListBitLIST_UNBUILDABLE) {
		var runs []enforce.DryRun
		for _, n := range about {
			if n >= 0 {
				runs = append(runs, enforce.DryRun{Rule: n, Unbuildable: true})
			}
		}
		return runs, nil
	}
	if int(decided) > len(image.ruleset.Rules) {
		return nil, errUnknownRuleset
	}
	var fired, lists []int
	for _, n := range about {
		if n < 0 {
			lists = append(lists, ^n)
		} else {
			fired = append(fired, n)
		}
	}
	return image.ruleset.DryRuns(int(decided)-1, fired, lists), nil
}

// What follows is bpf/include/dry.h for the interpreter.

func (o *outcome) dryAdd(priority, fired, list uint32) {
	o.flags |= bpf.MusterEventFlagEVENT_DRY
	o.dry.fired |= fired
	o.dry.priority = max(o.dry.priority, priority)
	o.addAudits(list | uint32(bpf.MusterListBitLIST_DRY))
}

func (o *outcome) dryCondition(c *bpf.MusterImageCondition) {
	priority := c.Priority &^ uint32(bpf.MusterPriorityBitPRIORITY_DRY)
	if priority&uint32(bpf.MusterPriorityBitPRIORITY_DENY) == 0 {
		priority = 0
	}
	o.dryAdd(priority, c.Rule, c.Audits)
}

func (o *outcome) dryPosture(image []byte, table uint32, class int) {
	if table == 0 {
		return
	}
	if d := view[bpf.MusterImageDry](image, ref(table), unitBytes/2*class); d.Policies&^o.dry.fired != 0 {
		o.dryAdd(1, 0, d.List)
	}
}

// unbuildable answers whether the class says anything of a path that could not be built.
func (o *outcome) unbuildable(class *bpf.MusterImageClass) bool {
	switch {
	case class.Flags&uint32(bpf.MusterClassFlagCLASS_CLOSED) != 0:
		o.verdict, o.flags = bpf.MusterVerdictVERDICT_DENY, bpf.MusterEventFlagEVENT_UNBUILDABLE
	case class.Dry != 0:
		o.dryAdd(1, 0, class.Dry)
		o.audits = append(o.audits, uint32(bpf.MusterListBitLIST_DECIDED)|uint32(bpf.MusterListBitLIST_UNBUILDABLE))
	default:
		return false
	}
	return true
}

// dryEnd keeps what somebody in dry run may have denied.
func (o *outcome) dryEnd(priority uint32) {
	if o.flags&bpf.MusterEventFlagEVENT_DRY == 0 {
		return
	}
	if o.verdict == bpf.MusterVerdictVERDICT_DENY || o.dry.priority <= priority {
		o.flags &^= bpf.MusterEventFlagEVENT_DRY
		o.audits = slices.DeleteFunc(o.audits, func(n uint32) bool { return n&uint32(bpf.MusterListBitLIST_DRY) != 0 })
		return
	}
	o.audits = append(o.audits, uint32(bpf.MusterListBitLIST_DECIDED)|o.rule)
}
