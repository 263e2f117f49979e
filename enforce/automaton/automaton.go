// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package automaton compiles all path matchers of one ruleset and class into one deterministic automaton
// over the bytes of a path, read from the root to the leaf.
//
// The automaton is plain data: a backend lays it out for its kernel. State 0 is the dead state; Start is
// where a path begins. Accept names the interned set of matchers that match when the path ends there.
//
// Paths are clean and absolute: no empty component, no slash at the end but for the root "/" itself, no
// NUL. What the automaton says of anything else is not defined.
//
// How it is made. All matchers become one nondeterministic automaton that shares every common beginning, so
// that exact paths and directories are simply a trie; subset construction makes it deterministic. A trie
// stays a trie: 10,000 exact paths cost as many states as they have different beginnings. What can grow
// beyond its parts are patterns among each other, and recursive directories times execnames. So there is a
// budget: if everything together exceeds it, literals, execnames and patterns get automata of their own, up
// to four, and a path has to be run through each. Patterns that exceed even that are excluded by name.
package automaton

import "slices"

// MaxAutomata is how many automata Compile makes at most.
const MaxAutomata = 4

// Matcher is one thing to match: the index is the caller's (a rule number).
type Matcher struct {
	Index int
	Kind  Kind
	// Text is the exact path, execname, pattern or directory (with trailing slash).
	Text      string
	Recursive bool // Directory only
}

// Kind is the way Matcher.Text is matched.
type Kind uint8

// The kinds of matcher.
const (
	Exact Kind = iota + 1
	ExecName
	Pattern
	Directory
)

// DFA is the compiled automaton.
type DFA struct {
	Start  uint32
	States []State
	// Sets[State.Accept] are the Matcher indexes that match there, ascending. Sets[0] is empty.
	Sets [][]int
}

// State is one state. A byte that no Edge covers leads to the dead state 0.
type State struct {
	Accept uint32
	Edges  []Edge // sorted by Lo, not overlapping
}

// Edge leads from every byte in [Lo, Hi] to To.
type Edge struct {
	Lo, Hi byte
	To     uint32
}

// Options bound the work and the result; the zero value is good.
type Options struct {
	// MaxStates is the greatest number of states of one automaton; 0 means DefaultMaxStates.
	MaxStates int
}

// DefaultMaxStates holds 10,000 exact paths with a hundred bytes each of their own.
const DefaultMaxStates = 1 << 20

// Excluded is a matcher that no automaton within the budget holds.
type Excluded struct {
	Index  int
	Reason string
}

// Match returns the indexes of the matchers that match the path, ascending. The answer must not be changed.
func (d *DFA) Match(path string) []int {
	at := d.Start
	for i := 0; i < len(path) && at != 0; i++ {
		at = d.States[at].next(path[i])
	}
	return d.Sets[d.States[at].Accept]
}

// next is the state that b leads to.
func (s *State) next(b byte) uint32 {
	i, _ := slices.BinarySearchFunc(s.Edges, b, func(e Edge, b byte) int { return int(e.Hi) - int(b) })
	if i < len(s.Edges) && s.Edges[i].Lo <= b {
		return s.Edges[i].To
	}
	return 0
}
