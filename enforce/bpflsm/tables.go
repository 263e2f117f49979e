// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"slices"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// meaning is what a set of rules means for every source, laid out once for each path that files known by it are marked with.
type meaning struct {
	row        ref // of whoever is no exception
	exceptions []bpf.MusterImageException
}

// markedSet is a set in the image.
type markedSet struct {
	meaning *meaning
	mark    int // 1 more than the path's place among r.marked, 0 for none
}

// internSet lays out a set of rules, once.
func (r *renderer) internSet(rules []int, mark int) ref {
	if len(rules) == 0 && mark == 0 {
		return 0
	}
	m := r.meaning(rules)
	if at, ok := r.sets[markedSet{m, mark}]; ok {
		return at
	}
	at := r.reserveTable(1 + (len(m.exceptions)+1)/2)
	s := view[bpf.MusterImageSet](r.bytes, at, 0)
	s.Count, s.Row = uint32(len(m.exceptions)), uint32(m.row)
	if mark != 0 {
		s.Mark = r.hashes[mark-1]
	}
	for i, e := range m.exceptions {
		*view[bpf.MusterImageException](r.bytes, at+1, 8*i) = e
	}
	r.sets[markedSet{m, mark}] = at
	return at
}

func (r *renderer) meaning(rules []int) *meaning {
	r.scratch = appendList(r.scratch[:0], rules)
	if m, ok := r.meanings[string(r.scratch)]; ok {
		return m
	}
	key := string(r.scratch)
	m := &meaning{row: r.row(r.resolver.Row(rules, enforce.NoSource, false))}
	m.exceptions = r.exceptions(rules, m.row)
	r.meanings[key] = m
	return m
}

// exceptions are the rows of the sources that some rule of the set names, by class.
func (r *renderer) exceptions(rules []int, base ref) []bpf.MusterImageException {
	var groups []int
	for _, n := range rules {
		for _, path := range r.ruleset.Rules[n].Sources {
			at, _ := slices.BinarySearch(r.sources, path)
			groups = append(groups, r.groupOf[at])
		}
	}
	slices.Sort(groups)
	var list []bpf.MusterImageException
	for _, g := range slices.Compact(groups) {
		source := r.groups[g]
		if row := r.row(r.resolver.Row(rules, source, false)); row != base {
			list = append(list, bpf.MusterImageException{Class: named(g), Row: uint32(row)})
		}
		if row := r.row(r.resolver.Row(rules, source, true)); row != base {
			list = append(list, bpf.MusterImageException{Class: marked(g), Row: uint32(row)})
		}
	}
	return append(list, r.withinExceptions(rules)...)
}

// row lays out one row, once; a row in which nothing fires is none.
func (r *renderer) row(row enforce.Row) ref {
	var out imageRow
	for i, e := range row {
		out[i] = imageEntry{
			priority: e.Priority, rule: uint32(e.Rule + 1), audits: r.audit(e.Audits), conditions: uint32(r.conditional(e.Conditional, e.Dry)),
		}
	}
	if out == (imageRow{}) {
		return 0
	}
	if at, ok := r.rows[out]; ok {
		return at
	}
	at := r.reserve(len(out))
	for i, e := range out {
		*view[bpf.MusterImageEntry](r.bytes, at+ref(i), 0) = bpf.MusterImageEntry{
			Priority: e.priority, Rule: e.rule, Audits: e.audits, Conditions: e.conditions,
		}
	}
	r.rows[out] = at
	return at
}

func (r *renderer) audit(list []int) uint32 {
	if len(list) == 0 {
		return 0
	}
	key := listKey(list)
	n, ok := r.auditOf[key]
	if !ok {
		n = uint32(len(r.audits))
		r.auditOf[key] = n
		r.audits = append(r.audits, slices.Clone(list))
	}
	return n
}

// sourceTable maps hashes of source paths to their classes.
func (r *renderer) sourceTable(h *bpf.MusterImageHeader) {
	if len(r.sources) == 0 {
		return
	}
	hashes := make([]uint64, len(r.sources))
	for i, path := range r.sources {
		hashes[i] = r.key.hash(path)
	}
	places, size := spread(hashes)
	at := r.reserveTable(size)
	h.Sources, h.SourceMask = uint32(at), uint32(size-1)
	for i, place := range places {
		g := r.groupOf[i]
		*view[bpf.MusterImageSource](r.bytes, at+ref(place), 0) = bpf.MusterImageSource{
			Hash: hashes[i], Class: named(g), Marked: marked(g),
		}
	}
}

// markTable maps hashes of protected paths to what a marked inode falls under in each class. Paths that are
// sources only have no entry: their marks are looked for among the sources.
func (r *renderer) markTable(h *bpf.MusterImageHeader) {
	paths := r.marked
	if len(paths) == 0 {
		return
	}
	sets := make([][markClasses]uint32, len(paths))
	for i, path := range paths {
		for class := range markClasses {
			sets[i][class] = uint32(r.internSet(r.protected[class][path], 0))
		}
	}
	places, size := spread(r.hashes)
	at := r.reserveTable(size)
	h.Marks, h.MarkMask = uint32(at), uint32(size-1)
	for i, place := range places {
		*view[bpf.MusterImageMark](r.bytes, at+ref(place), 0) = bpf.MusterImageMark{Hash: r.hashes[i], Sets: sets[i]}
	}
}

// spread places hashes in an open-addressed table so that none is further than the kernel looks.
func spread(hashes []uint64) (places []int, size int) {
	for size = 4; size < 2*len(hashes); {
		size *= 2
	}
	for ; ; size *= 2 {
		if places := tryspread(hashes, size); places != nil {
			return places, size
		}
	}
}

func tryspread(hashes []uint64, size int) []int {
	taken := make([]bool, size)
	places := make([]int, len(hashes))
	for i, hash := range hashes {
		probe := 0
		for ; probe < int(bpf.MusterLimitTABLE_PROBES); probe++ {
			at := (int(uint32(hash)) + probe) & (size - 1)
			if !taken[at] {
				taken[at], places[i] = true, at
				break
			}
		}
		if probe == int(bpf.MusterLimitTABLE_PROBES) {
			return nil
		}
	}
	return places
}

// postures says for every source class what an allow-list does with what no rule matches.
func (r *renderer) postures(h *bpf.MusterImageHeader) {
	if !slices.ContainsFunc(r.ruleset.Rules, func(rule enforce.Rule) bool { return rule.Rule.Action == policies.ActionAllow }) {
		return // no allow-list for anybody
	}
	n := 1 + 2*len(r.groups)
	at := r.reserveTable(n)
	h.Postures, h.SourceClasses = uint32(at), uint32(n)
	put := func(class uint32, source enforce.SourceClass) {
		p := bpf.MusterImagePosture{}
		for c := range classes {
			if r.resolver.AllowList(classes[c], source) {
				h.Classes[c].Flags |= uint32(bpf.MusterClassFlagCLASS_POSTURE)
				p.Classes |= uint64(postureNumber(r.ruleset.Postures.Of(classes[c]))) << (postureBits * c)
			}
		}
		r.dryPostures(h, &p, source)
		*view[bpf.MusterImagePosture](r.bytes, at, unitBytes*int(class)) = p
	}
	put(0, enforce.NoSource)
	for g, source := range r.groups {
		put(named(g), source)
		put(marked(g), source)
	}
}

func postureNumber(p enforce.Posture) bpf.MusterPosture {
	if p == enforce.PostureBlock {
		return bpf.MusterPosturePOSTURE_BLOCK
	}
	return bpf.MusterPosturePOSTURE_AUDIT
}
