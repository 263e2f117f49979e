// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// errBudget says that a set of matchers has more states than it may.
var errBudget = errors.New("more states than the budget allows")

// workPerState bounds how many states of the nondeterministic automaton one state stands for on average.
const workPerState = 32

// subsets is the subset construction: a state of the result stands for the set of states that the
// nondeterministic automaton may be in.
type subsets struct {
	n     *nfa
	limit int
	work  int

	single []uint32          // the result's state for a set of one
	known  map[string]uint32 // and for every other set
	todo   []pending

	accepts map[string]uint32
	lists   [][]int

	states []building
	edges  []Edge

	combos map[string]*partition
	// Scratch, reused for every set.
	mark    []uint32
	marked  uint32
	key     []byte
	targets [256]uint32
	buffer  []int32
	pool    []int32
	list    []literal
}

// building is a State whose edges are edges[from:to]: the slice still grows.
type building struct {
	accept   uint32
	from, to uint32
}

// pending is a state of the result whose edges are still to be made.
type pending struct {
	id  uint32
	set []int32
}

// determinise makes the deterministic automaton, or errBudget. In both cases it says how much work it was.
func determinise(n *nfa, limit int) (*DFA, int, error) {
	s := &subsets{
		n: n, limit: limit, work: limit * workPerState,
		single:  make([]uint32, len(n.nodes)),
		known:   map[string]uint32{},
		accepts: map[string]uint32{"": 0},
		lists:   [][]int{{}},
		states:  make([]building, 1, min(len(n.nodes)+16, limit)),
		combos:  map[string]*partition{},
		mark:    make([]uint32, len(n.nodes)),
	}
	start := s.state(s.closure([]int32{root}))
	for len(s.todo) > 0 {
		p := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		if len(s.states) > limit || s.work < 0 {
			return nil, limit*workPerState - s.work, errBudget
		}
		s.expand(p)
	}
	return s.finish(start), limit*workPerState - s.work, nil
}

// closure is what a set reaches without a byte, sorted, without what an inner directory makes superfluous.
// The set is changed.
func (s *subsets) closure(set []int32) []int32 {
	if len(set) == 1 && len(s.n.extras[s.n.nodes[set[0]].extra].empty) == 0 {
		s.work--
		return s.alone(set[0])
	}
	s.marked++
	out := set[:0:0]
	for len(set) > 0 {
		at := set[len(set)-1]
		set = set[:len(set)-1]
		if s.mark[at] == s.marked {
			continue
		}
		s.mark[at] = s.marked
		out = append(out, at)
		if x := s.n.nodes[at].extra; x != 0 {
			set = append(set, s.n.extras[x].empty...)
		}
	}
	s.work -= len(out)
	if len(out) > 1 {
		out = s.innermost(out)
		slices.Sort(out)
	}
	return out
}

// alone is a set of one, as nearly all of a trie are: many of them lie in one piece of memory.
func (s *subsets) alone(at int32) []int32 {
	if len(s.pool) == cap(s.pool) {
		s.pool = make([]int32, 0, poolSize)
	}
	s.pool = append(s.pool, at)
	return s.pool[len(s.pool)-1 : len(s.pool) : len(s.pool)]
}

const poolSize = 1 << 10

// innermost removes the insides of recursive directories around another one of the set.
func (s *subsets) innermost(set []int32) []int32 {
	outer := false
	for _, at := range set {
		for w := s.within(at); w != 0; w = s.within(w) {
			if s.mark[w] == s.marked {
				s.mark[w]--
				outer = true
			}
		}
	}
	if !outer {
		return set
	}
	return slices.DeleteFunc(set, func(at int32) bool { return s.mark[at] != s.marked })
}

func (s *subsets) within(at int32) int32 { return s.n.extras[s.n.nodes[at].extra].within }

// state is the result's state for a set; a new one is put on the list of what to expand.
func (s *subsets) state(set []int32) uint32 {
	if len(set) == 0 {
		return 0
	}
	if len(set) == 1 {
		if s.single[set[0]] == 0 {
			s.single[set[0]] = s.newState(set)
		}
		return s.single[set[0]]
	}
	s.key = s.key[:0]
	for _, at := range set {
		s.key = binary.LittleEndian.AppendUint32(s.key, uint32(at))
	}
	if id, ok := s.known[string(s.key)]; ok {
		return id
	}
	key := string(s.key)
	id := s.newState(set)
	s.known[key] = id
	return id
}

func (s *subsets) newState(set []int32) uint32 {
	id := uint32(len(s.states))
	s.states = append(s.states, building{accept: s.accept(set)})
	s.todo = append(s.todo, pending{id, set})
	return id
}

// accept interns the matchers that match in a set of states.
func (s *subsets) accept(set []int32) uint32 {
	var list []int
	for _, at := range set {
		if x := s.n.nodes[at].extra; x != 0 {
			list = append(list, s.n.extras[x].accept...)
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	list = slices.Compact(list)
	s.key = s.key[:0]
	for _, index := range list {
		s.key = binary.AppendUvarint(s.key, uint64(index))
	}
	id, ok := s.accepts[string(s.key)]
	if !ok {
		id = uint32(len(s.lists))
		s.lists = append(s.lists, list)
		s.accepts[string(s.key)] = id
	}
	return id
}

// expand makes the edges of one state.
func (s *subsets) expand(p pending) {
	from := uint32(len(s.edges))
	if part := s.partition(p.set); part == nil {
		s.expandLiterals(p.set)
	} else {
		s.expandSets(p.set, part)
	}
	// Discovering targets appends to states, so the place is looked up again.
	s.states[p.id].from, s.states[p.id].to = from, uint32(len(s.edges))
}

// literal is an edge over one byte.
type literal struct {
	label byte
	to    int32
}

// literals are the edges over one byte of a set; the next call reuses the list.
func (s *subsets) literals(set []int32) []literal {
	list := s.list[:0]
	for _, at := range set {
		for c := s.n.nodes[at].first; c != 0; c = s.n.nodes[c].next {
			list = append(list, literal{s.n.nodes[c].label, c})
		}
	}
	slices.SortFunc(list, func(a, b literal) int {
		if a.label != b.label {
			return int(a.label) - int(b.label)
		}
		return int(a.to - b.to)
	})
	s.list = list
	return list
}

// expandLiterals serves states that have edges over single bytes only, which in a trie are nearly all.
func (s *subsets) expandLiterals(set []int32) {
	list := s.literals(set)
	for len(list) > 0 {
		label, targets := list[0].label, s.buffer[:0]
		for len(list) > 0 && list[0].label == label {
			targets = append(targets, list[0].to)
			list = list[1:]
		}
		s.buffer = targets
		s.edges = append(s.edges, Edge{label, label, s.state(s.closure(targets))})
	}
}

// expandSets serves the others: one target for each class of bytes that no set edge tells apart, and one
// for each byte that has an edge of its own besides.
func (s *subsets) expandSets(set []int32, part *partition) {
	var all []setEdge
	for _, at := range set {
		if x := s.n.nodes[at].extra; x != 0 {
			all = append(all, s.n.extras[x].sets...)
		}
	}
	base := func(class int) []int32 {
		targets := s.buffer[:0]
		for _, e := range all {
			if part.has[class][e.set] {
				targets = append(targets, e.to)
			}
		}
		s.buffer = targets
		return targets
	}
	var of [256]uint32
	for class := range part.has {
		of[class] = s.state(s.closure(base(class)))
	}
	for b := 1; b < 256; b++ {
		s.targets[b] = of[part.class[b]]
	}
	for list := s.literals(set); len(list) > 0; {
		label := list[0].label
		targets := base(int(part.class[label]))
		for len(list) > 0 && list[0].label == label {
			targets = append(targets, list[0].to)
			list = list[1:]
		}
		s.buffer = targets
		s.targets[label] = s.state(s.closure(targets))
	}
	s.emit()
}

// emit appends the edges that targets describes.
func (s *subsets) emit() {
	for lo := 1; lo < 256; {
		hi := lo
		for hi < 255 && s.targets[hi+1] == s.targets[lo] {
			hi++
		}
		if s.targets[lo] != 0 {
			s.edges = append(s.edges, Edge{byte(lo), byte(hi), s.targets[lo]})
		}
		lo = hi + 1
	}
}

// partition divides the bytes into classes that the set edges of a state do not tell apart.
type partition struct {
	class [256]uint8
	has   []map[int32]bool // class -> which byte sets contain it
}

// partition returns nil for a set without set edges. Few combinations of byte sets occur, so each is
// worked out once.
func (s *subsets) partition(set []int32) *partition {
	ids := s.buffer[:0]
	for _, at := range set {
		if x := s.n.nodes[at].extra; x != 0 {
			for _, e := range s.n.extras[x].sets {
				ids = append(ids, e.set)
			}
		}
	}
	s.buffer = ids
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	s.key = s.key[:0]
	for _, id := range ids {
		s.key = binary.LittleEndian.AppendUint32(s.key, uint32(id))
	}
	part, ok := s.combos[string(s.key)]
	if !ok {
		part = newPartition(s.n.sets, ids)
		s.combos[string(s.key)] = part
	}
	return part
}

func newPartition(sets []policies.ByteSet, ids []int32) *partition {
	part := &partition{}
	classes := map[string]uint8{}
	signature := make([]byte, len(ids))
	for b := 1; b < 256; b++ {
		for i, id := range ids {
			signature[i] = 0
			if sets[id].Has(byte(b)) {
				signature[i] = 1
			}
		}
		class, ok := classes[string(signature)]
		if !ok {
			class = uint8(len(classes))
			classes[string(signature)] = class
			members := map[int32]bool{}
			for i, id := range ids {
				members[id] = signature[i] == 1
			}
			part.has = append(part.has, members)
		}
		part.class[b] = class
	}
	return part
}

// finish turns what was built into the automaton.
func (s *subsets) finish(start uint32) *DFA {
	d := &DFA{Start: start, States: make([]State, len(s.states)), Sets: s.lists}
	for i, b := range s.states {
		d.States[i] = State{Accept: b.accept, Edges: s.edges[b.from:b.to:b.to]}
	}
	return d
}
