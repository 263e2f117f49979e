// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce/automaton"
)

// tailLimit is how many literal bytes one state holds.
const tailLimit = int(bpf.MusterLimitTAIL_BYTES)

// branch is one state's transitions in another order: where nearly every byte leads, and the exceptions.
type branch struct {
	accept     uint32
	other      uint32
	exceptions []exception // by byte, ascending
	known      bool
}

type exception struct {
	at byte
	to uint32
}

// branchOf takes the commonest target for other, so that the exceptions are few. NUL occurs in no path.
func (a *stateWriter) branchOf(s *automaton.State) branch {
	b := branch{accept: s.Accept, other: commonest(s.Edges), known: true}
	if cap(a.pool)-len(a.pool) < 255 {
		a.pool = make([]exception, 0, poolSize)
	}
	from, next := len(a.pool), 1
	add := func(lo, hi int, to uint32) {
		for c := lo; c <= hi && to != b.other; c++ {
			a.pool = append(a.pool, exception{byte(c), to})
		}
	}
	for _, e := range s.Edges {
		add(next, int(e.Lo)-1, 0)
		add(max(int(e.Lo), 1), int(e.Hi), e.To)
		next = int(e.Hi) + 1
	}
	add(next, 255, 0)
	b.exceptions = a.pool[from:len(a.pool):len(a.pool)]
	return b
}

// poolSize is how many exceptions are made room for at once: most states have one.
const poolSize = 1 << 12

// commonest is where most bytes lead; among equals it is the state of the smallest number.
func commonest(edges []automaton.Edge) uint32 {
	dead := 255
	for _, e := range edges {
		dead -= width(e)
	}
	if 2*dead > 255 {
		return 0 // as in nearly every state of a trie
	}
	counts := map[uint32]int{0: dead}
	for _, e := range edges {
		counts[e.To] += width(e)
	}
	most := uint32(0)
	for to, n := range counts {
		if best := counts[most]; n > best || n == best && to < most {
			most = to
		}
	}
	return most
}

// width is how many bytes take an edge.
func width(e automaton.Edge) int { return int(e.Hi) - int(max(e.Lo, 1)) + 1 }

// tail is a run of states that each go on with one literal byte and otherwise all do the same.
type tail struct {
	text  []byte
	next  uint32
	other uint32
	// slash is the target of a '/' out of turn; slashSet says that some state of the run decides it.
	slash    uint32
	slashSet bool
}

// step is one state seen as part of a tail: its literal byte, and where '/' leads if it is not that byte.
// A state without a way on, or with more than one, is none.
func (b *branch) step() (literal byte, to, slash uint32, slashSet, ok bool) {
	switch e := b.exceptions; {
	case len(e) == 1 && e[0].at == '/':
		return '/', e[0].to, 0, false, true
	case len(e) == 1:
		return e[0].at, e[0].to, b.other, true, true
	case len(e) == 2 && e[0].at == '/':
		return e[1].at, e[1].to, e[0].to, true, true
	case len(e) == 2 && e[1].at == '/':
		return e[0].at, e[0].to, e[1].to, true, true
	}
	return 0, 0, 0, false, false
}

// tailFrom follows the run that begins at start. Within a run no state accepts.
func (a *stateWriter) tailFrom(start uint32) tail {
	var t tail
	for at := start; len(t.text) < tailLimit; {
		b := a.branch(at)
		literal, to, slash, slashSet, ok := b.step()
		if !ok || len(t.text) > 0 && b.accept != 0 || to == 0 {
			break
		}
		if len(t.text) > 0 && (b.other != t.other || slashSet && t.slashSet && slash != t.slash) {
			break
		}
		if slashSet {
			t.slash, t.slashSet = slash, true
		}
		t.other = b.other
		if t.text == nil {
			t.text = make([]byte, 0, tailLimit)
		}
		t.text = append(t.text, literal)
		t.next, at = to, to
	}
	return t
}

// stateWriter lays one automaton out. accept translates its sets to references.
type stateWriter struct {
	layout   *layout
	dfa      *automaton.DFA
	accept   func(set uint32) ref
	branches []branch // by state
	places   []ref    // by state, 0 for what has none
	pool     []exception
}

// record is one state as it will stand in the image.
type record struct {
	state uint32
	tail  tail // of more than one byte, or empty
}

func writeStates(l *layout, dfa *automaton.DFA, accept func(uint32) ref) ref {
	a := &stateWriter{layout: l, dfa: dfa, accept: accept, branches: make([]branch, len(dfa.States)), places: make([]ref, len(dfa.States))}
	records := make([]record, 0, len(dfa.States)/2) // tails make them fewer
	todo := []uint32{dfa.Start}
	for len(todo) > 0 {
		state := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if state == 0 || a.places[state] != 0 {
			continue
		}
		r := record{state: state}
		if t := a.tailFrom(state); len(t.text) > 1 {
			r.tail = t
		}
		a.places[state] = l.reserve(a.units(&r))
		records = append(records, r)
		todo = a.targets(todo, &r)
	}
	for i := range records {
		a.write(&records[i])
	}
	return a.places[dfa.Start]
}

func (a *stateWriter) branch(state uint32) *branch {
	b := &a.branches[state]
	if !b.known {
		*b = a.branchOf(&a.dfa.States[state])
	}
	return b
}

// targets adds the states that a record leads to.
func (a *stateWriter) targets(list []uint32, r *record) []uint32 {
	if len(r.tail.text) > 0 {
		return append(list, r.tail.other, r.tail.slash, r.tail.next)
	}
	b := a.branch(r.state)
	list = append(list, b.other)
	for _, e := range b.exceptions {
		list = append(list, e.to)
	}
	return list
}

// units is a record's size.
func (a *stateWriter) units(r *record) int {
	if n := len(r.tail.text); n > 8 {
		return 3
	} else if n > 0 {
		return 2
	}
	b := a.branch(r.state)
	switch n := len(b.exceptions); {
	case n == 0 && b.other == 0:
		return 1
	case n <= int(bpf.MusterLimitSPARSE_EDGES):
		return 2
	default:
		width := int(b.exceptions[n-1].at) - int(b.exceptions[0].at) + 1
		return 1 + (width*4+unitBytes-1)/unitBytes
	}
}

func (a *stateWriter) write(r *record) {
	b := a.branch(r.state)
	at := a.places[r.state]
	accept := uint32(a.accept(b.accept)) // may move the bytes
	s := view[bpf.MusterImageState](a.layout.bytes, at, 0)
	s.Accept = accept
	s.Other = uint32(a.places[b.other])
	switch {
	case len(r.tail.text) > 0:
		a.writeTail(s, at, &r.tail)
	case len(b.exceptions) == 0 && b.other == 0:
		s.Kind = uint8(bpf.MusterStateKindSTATE_LEAF)
	case len(b.exceptions) <= int(bpf.MusterLimitSPARSE_EDGES):
		s.Kind = uint8(bpf.MusterStateKindSTATE_SPARSE)
		for i, e := range b.exceptions {
			s.Word |= uint32(e.at) << (8 * i)
			*view[uint32](a.layout.bytes, at+1, 4*i) = uint32(a.places[e.to])
		}
	default:
		a.writeDense(s, at, b)
	}
}

func (a *stateWriter) writeTail(s *bpf.MusterImageState, at ref, t *tail) {
	s.Kind = uint8(bpf.MusterStateKindSTATE_TAIL)
	s.Count = uint8(len(t.text))
	s.Other = uint32(a.places[t.other])
	s.Word = uint32(a.places[t.next])
	*view[uint32](a.layout.bytes, at+1, 0) = uint32(a.places[t.slash])
	copy(a.layout.bytes[int(at+1)*unitBytes+8:], t.text)
}

func (a *stateWriter) writeDense(s *bpf.MusterImageState, at ref, b *branch) {
	s.Kind = uint8(bpf.MusterStateKindSTATE_DENSE)
	s.Lo, s.Hi = b.exceptions[0].at, b.exceptions[len(b.exceptions)-1].at
	for c := int(s.Lo); c <= int(s.Hi); c++ {
		*view[uint32](a.layout.bytes, at+1, 4*(c-int(s.Lo))) = s.Other
	}
	for _, e := range b.exceptions {
		*view[uint32](a.layout.bytes, at+1, 4*int(e.at-s.Lo)) = uint32(a.places[e.to])
	}
}
