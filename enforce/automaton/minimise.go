// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton

import "encoding/binary"

// minimiseLimit is the size up to which an automaton is minimised. Larger ones are tries for the most part,
// in which every end has a set of its own and nothing can be merged.
const minimiseLimit = 1 << 12

// minimise merges states that no continuation tells apart (Moore's refinement).
func minimise(d *DFA) *DFA {
	if len(d.States) > minimiseLimit {
		return d
	}
	class := make([]uint32, len(d.States))
	count := classify(d, class, func(key []byte, s *State) []byte {
		return binary.LittleEndian.AppendUint32(key, s.Accept)
	})
	for {
		refined := classify(d, class, func(key []byte, s *State) []byte { return signature(key, s, class) })
		if refined == count {
			return merge(d, class, count)
		}
		count = refined
	}
}

// classify gives states of equal key the same number, that of the dead state being 0, and returns how many
// numbers there are. A state's old class is always part of its key, so that classes only ever divide.
func classify(d *DFA, class []uint32, key func([]byte, *State) []byte) int {
	numbers := map[string]uint32{}
	next := make([]uint32, len(class))
	var buffer []byte
	for i := range d.States {
		buffer = binary.LittleEndian.AppendUint32(buffer[:0], class[i])
		buffer = key(buffer, &d.States[i])
		number, ok := numbers[string(buffer)]
		if !ok {
			number = uint32(len(numbers))
			numbers[string(buffer)] = number
		}
		next[i] = number
	}
	copy(class, next)
	return len(numbers)
}

// signature describes where a state's edges lead, by class; neighbouring edges into one class count as one,
// and edges into the dead class not at all.
func signature(key []byte, s *State, class []uint32) []byte {
	for _, e := range mergedEdges(nil, s, class) {
		key = append(key, e.Lo, e.Hi)
		key = binary.LittleEndian.AppendUint32(key, e.To)
	}
	return key
}

func mergedEdges(edges []Edge, s *State, class []uint32) []Edge {
	for _, e := range s.Edges {
		to := class[e.To]
		if to == class[0] {
			continue
		}
		if n := len(edges); n > 0 && edges[n-1].To == to && edges[n-1].Hi+1 == e.Lo {
			edges[n-1].Hi = e.Hi
			continue
		}
		edges = append(edges, Edge{e.Lo, e.Hi, to})
	}
	return edges
}

// merge makes the automaton whose states are the classes. The dead state is the first of its class, so it
// stays number 0.
func merge(d *DFA, class []uint32, count int) *DFA {
	m := &DFA{Start: class[d.Start], States: make([]State, count), Sets: d.Sets}
	done := make([]bool, count)
	for i := range d.States {
		if c := class[i]; !done[c] {
			done[c] = true
			m.States[c] = State{Accept: d.States[i].Accept, Edges: mergedEdges(nil, &d.States[i], class)}
		}
	}
	return m
}
