// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"slices"

	"github.com/muster-fleet/muster/bpf"
)

// attempt is an operation as the kernel's matcher sees it.
type attempt struct {
	class      int
	names      uint64 // of a class whose objects have no path
	path       string // "" without noPath: a memfd, which has no name
	noPath     bool   // it could not be built
	sources    [bpf.MusterLimitSOURCES]uint64
	chain      [bpf.MusterLimitCHAIN]uint64
	marks      [bpf.MusterLimitOBJECT_MARKS]uint64
	attributes uint32
	args       []uint64  // hashes
	call       uint32    // of class syscalls: its index
	paths      [2]string // of class syscalls: of the executable and the script
}

// outcome is what the kernel's matcher answers.
type outcome struct {
	verdict bpf.MusterVerdict
	rule    uint32 // number + 1
	flags   bpf.MusterEventFlag
	audits  []uint32 // numbers of lists, with the bits of bpf.MusterListBit
	dry     struct{ priority, fired uint32 }
}

// interpret decides on an image as bpf/include/match.h does. It is what the C is written against: the two
// are compared with each other and with Ruleset.Decide, so that a fault shows which of the three is wrong.
func interpret(image []byte, a *attempt) outcome {
	h := view[bpf.MusterImageHeader](image, 0, 0)
	var o outcome
	var best bpf.MusterImageEntry
	if a.noPath && o.unbuildable(&h.Classes[a.class]) {
		return o.inMode(h)
	}
	var known []uint32
	for i, hash := range a.sources {
		known = append(known, sourceClass(image, h, hash, i >= 2))
	}
	for i, hash := range a.chain {
		known = append(known, sourceClass(image, h, hash, i >= int(bpf.MusterLimitMIDDLES)))
	}
	if a.class == int(bpf.MusterClassCLASS_SYSCALLS) {
		return o.call(image, h, a, known)
	}
	if isNamed(a.class) && concerned(image, h, a.class, known)&a.names == 0 {
		return o // the hooks would not even ask
	}
	for _, set := range objectSets(image, h, a) {
		for i, class := range known {
			if row := rowFor(image, set, i, class); row != 0 {
				e := view[bpf.MusterImageEntry](image, ref(row+a.attributes), 0)
				o.combine(&best, e)
				o.conditional(&best, image, ref(e.Conditions), a.args)
			}
		}
	}
	if best.Priority == 0 && !a.mapped() && h.Postures != 0 {
		o.posture(image, h, a.class, known)
	}
	o.dryEnd(best.Priority)
	return o.inMode(h)
}

func (a *attempt) mapped() bool {
	return a.class == int(bpf.MusterClassCLASS_PROCESS) && a.attributes&uint32(bpf.MusterRowBitROW_MAPPED) != 0
}

// rowFor is the row of a set for the caller's i-th source, or 0. The executable always counts, if only as no
// known source; the others when they are there.
func rowFor(image []byte, set ref, i int, class uint32) uint32 {
	if i > 0 && class == 0 {
		return 0
	}
	if row := rowOf(image, set, class); row != 0 || i >= 2 {
		return row
	}
	return view[bpf.MusterImageSet](image, set, 0).Row
}

// objectSets are the sets of the name in every automaton, and those of the object's marks.
func objectSets(image []byte, h *bpf.MusterImageHeader, a *attempt) []ref {
	var sets []ref
	c := &h.Classes[a.class]
	for n := range c.NameCount {
		if set := *view[uint32](image, ref(c.Names), 4*int(n)); a.names>>n&1 != 0 && set != 0 {
			sets = append(sets, ref(set))
		}
	}
	for _, start := range c.Start {
		if a.path == "" {
			break
		}
		if set := run(image, ref(start), a.path); set != 0 {
			sets = append(sets, set)
		}
	}
	for _, hash := range a.marks {
		if at := find(image, h.Marks, h.MarkMask, hash); at != 0 && a.class < markClasses {
			if set := view[bpf.MusterImageMark](image, at, 0).Sets[a.class]; set != 0 {
				sets = append(sets, ref(set))
			}
		}
	}
	return sets
}

// run is the set that the automaton accepts path with.
func run(image []byte, state ref, path string) ref {
	for state != 0 {
		s := view[bpf.MusterImageState](image, state, 0)
		if path == "" {
			return ref(s.Accept)
		}
		used := 1
		switch bpf.MusterStateKind(s.Kind) {
		case bpf.MusterStateKindSTATE_TAIL:
			state, used = runTail(image, state, s, path)
		case bpf.MusterStateKindSTATE_SPARSE:
			next := ref(s.Other)
			for i := range int(bpf.MusterLimitSPARSE_EDGES) {
				if byte(s.Word>>(8*i)) == path[0] {
					next = ref(*view[uint32](image, state+1, 4*i))
					break
				}
			}
			state = next
		case bpf.MusterStateKindSTATE_DENSE:
			if path[0] >= s.Lo && path[0] <= s.Hi {
				state = ref(*view[uint32](image, state+1, 4*int(path[0]-s.Lo)))
			} else {
				state = ref(s.Other)
			}
		default:
			return 0
		}
		path = path[used:]
	}
	return 0
}

func runTail(image []byte, at ref, s *bpf.MusterImageState, path string) (next ref, used int) {
	text := image[int(at+1)*unitBytes+8:][:s.Count]
	for i, c := range text {
		switch {
		case i == len(path):
			return 0, i
		case path[i] == c:
		case path[i] == '/':
			return ref(*view[uint32](image, at+1, 0)), i + 1
		default:
			return ref(s.Other), i + 1
		}
	}
	return ref(s.Word), len(text)
}

func find(image []byte, table, mask uint32, hash uint64) ref {
	if hash == 0 || table == 0 {
		return 0
	}
	for i := range uint32(bpf.MusterLimitTABLE_PROBES) {
		at := ref(table + (uint32(hash)+i)&mask)
		if *view[uint64](image, at, 0) == hash {
			return at
		}
	}
	return 0
}

func sourceClass(image []byte, h *bpf.MusterImageHeader, hash uint64, byMark bool) uint32 {
	at := find(image, h.Sources, h.SourceMask, hash)
	switch {
	case at == 0:
		return 0
	case byMark:
		return view[bpf.MusterImageSource](image, at, 0).Marked
	default:
		return view[bpf.MusterImageSource](image, at, 0).Class
	}
}

// rowOf is the row that a source class has as an exception, or 0.
func rowOf(image []byte, set ref, class uint32) uint32 {
	s := view[bpf.MusterImageSet](image, set, 0)
	for i := range int(s.Count) {
		if e := view[bpf.MusterImageException](image, set+1, 8*i); class != 0 && e.Class == class {
			return e.Row
		}
	}
	return 0
}

func (o *outcome) combine(best, e *bpf.MusterImageEntry) {
	if e.Audits != 0 {
		o.addAudits(e.Audits)
	}
	better := e.Priority > best.Priority || e.Priority == best.Priority && e.Rule < best.Rule
	if e.Priority != 0 && better {
		*best = *e
		o.verdict, o.rule = bpf.MusterVerdictVERDICT_PERMIT, e.Rule
		if e.Priority&uint32(bpf.MusterPriorityBitPRIORITY_DENY) != 0 {
			o.verdict = bpf.MusterVerdictVERDICT_DENY
		}
	}
}

// conditional lets the rules of a list that fire for these arguments take part.
func (o *outcome) conditional(best *bpf.MusterImageEntry, image []byte, list ref, args []uint64) {
	if list == 0 {
		return
	}
	head := view[bpf.MusterImageConditions](image, list, 0)
	if head.Dry != 0 {
		o.dryAdd(head.Priority, head.Policies, head.Dry)
	}
	for i := range ref(head.Count) {
		c := view[bpf.MusterImageCondition](image, list+1+i, 0)
		table, mask := c.Args+1, view[bpf.MusterImageArgs](image, ref(c.Args), 0).Mask
		listed := true
		for _, hash := range args {
			listed = listed && find(image, table, mask, hash) != 0
		}
		if permits := c.Priority != 0 && c.Priority&uint32(bpf.MusterPriorityBitPRIORITY_DENY) == 0; listed == permits {
			if c.Priority&uint32(bpf.MusterPriorityBitPRIORITY_DRY) != 0 {
				o.dryCondition(c)
				continue
			}
			o.combine(best, &bpf.MusterImageEntry{Priority: c.Priority, Rule: c.Rule, Audits: c.Audits})
		}
	}
}

func (o *outcome) addAudits(list uint32) {
	if slices.Contains(o.audits, list) {
		return
	}
	o.audits = append(o.audits, list)
}

func (o *outcome) posture(image []byte, h *bpf.MusterImageHeader, class int, known []uint32) {
	var strictest bpf.MusterPosture
	for i, c := range known {
		if i == 0 || c != 0 {
			strictest |= bpf.MusterPosture(view[bpf.MusterImagePosture](image, ref(h.Postures), unitBytes*int(c)).Classes >> (postureBits * class) & 15)
			o.dryPosture(image, view[bpf.MusterImagePosture](image, ref(h.Postures), unitBytes*int(c)).Dry, class)
		}
	}
	strictest &= bpf.MusterPosturePOSTURE_AUDIT | bpf.MusterPosturePOSTURE_BLOCK
	switch {
	case strictest&bpf.MusterPosturePOSTURE_BLOCK != 0:
		o.verdict = bpf.MusterVerdictVERDICT_DENY
		o.flags |= bpf.MusterEventFlagEVENT_POSTURE
	case strictest != 0:
		o.flags |= bpf.MusterEventFlagEVENT_POSTURE | bpf.MusterEventFlagEVENT_WOULD_DENY
	}
}

// concerned are the names that the image says anything of to these sources.
func concerned(image []byte, h *bpf.MusterImageHeader, class int, known []uint32) uint64 {
	var names uint64
	for i, c := range known {
		if h.Concerns != 0 && (i == 0 || c != 0) {
			names |= view[bpf.MusterImageConcern](image, ref(h.Concerns+c), 0).Names[class-firstNamed]
		}
	}
	return names
}

// inMode permits in audit mode what would be denied.
func (o *outcome) inMode(h *bpf.MusterImageHeader) outcome {
	if o.verdict == bpf.MusterVerdictVERDICT_DENY && h.Mode == uint32(bpf.MusterModeMODE_AUDIT) {
		o.verdict = bpf.MusterVerdictVERDICT_PERMIT
		o.flags |= bpf.MusterEventFlagEVENT_WOULD_DENY
	}
	return *o
}

// call is what is reported of a system call: by its sources, and by the directories that the executable lies in.
func (o *outcome) call(image []byte, h *bpf.MusterImageHeader, a *attempt, known []uint32) outcome {
	if h.Calls == 0 {
		return *o
	}
	group := view[bpf.MusterImageCall](image, ref(h.Calls), 8*int(a.call)).Group
	if group == 0 {
		return *o
	}
	sets := []ref{ref(view[bpf.MusterImageAny](image, ref(group+1), 0).Set)}
	for _, start := range view[bpf.MusterImageGroup](image, ref(group), 0).Start {
		if a.path != "" {
			sets = append(sets, run(image, ref(start), a.path))
		}
	}
	sources := slices.Clone(known)
	for _, path := range a.paths {
		if h.Directories != 0 && path != "" {
			sources = append(sources, uint32(run(image, ref(h.Directories), path)))
		}
	}
	var best bpf.MusterImageEntry
	for _, set := range sets {
		for i, class := range sources {
			if set == 0 {
				break
			}
			if row := rowFor(image, set, i, class); row != 0 {
				o.combine(&best, view[bpf.MusterImageEntry](image, ref(row), 0))
			}
		}
	}
	return *o
}
