// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package automaton compiles all path matchers of one ruleset and class into one deterministic automaton
// over the bytes of a path, read from the root to the leaf.
//
// The automaton is plain data: a backend lays it out for its kernel. State 0 is the dead state; Start is
// where a path begins. Accept names the interned set of matchers that match when the path ends there.
package automaton

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
