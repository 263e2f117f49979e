// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton

import (
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// nfa is a nondeterministic automaton that shares common beginnings. Its invariant: which strings lead to a
// state never changes once the state exists, whatever is added later. Sharing is therefore always right.
type nfa struct {
	nodes  []node
	extras []extra
	// sets are the distinct byte sets of all set edges.
	sets  []policies.ByteSet
	setID map[policies.ByteSet]int32
	// joins finds the state behind a group of alternatives again.
	joins map[joinKey]int32
	// directories and the state inside each, to be told apart from what they lie in.
	inside map[string]int32
	any    int32 // ids in sets: every byte but NUL
	inName int32 // every byte but NUL and '/'
	// last is the text that path was called with before, and way the state behind each of its bytes: the next one begins with
	// the same directories for the most part.
	last string
	way  []int32
}

// node is one state: sixteen bytes, because there is one for each byte of each path. Its edges over single
// bytes are a list through first and next.
type node struct {
	first, next int32 // child, sibling; 0 is none: the root is nobody's child
	extra       int32 // index into extras, 0 is none
	label       byte  // the byte that leads here
}

// extra is what few states have.
type extra struct {
	sets   []setEdge
	empty  []int32 // edges that take no byte
	accept []int   // matchers that match when the path ends here
	star   int32   // the loop state of * and of ** behind this state, 0 is none
	double int32
	// within leads from the state inside a recursive directory to the one of the directory around it.
	// Whoever is in the inner one accepts for the outer too and need not be in both.
	within int32
}

// setEdge is an edge over every byte of sets[set].
type setEdge struct{ set, to int32 }

type joinKey struct {
	from         int32
	alternatives string
}

const root = 0

func newNFA() *nfa {
	n := &nfa{
		nodes:  make([]node, 1),
		extras: make([]extra, 1),
		setID:  map[policies.ByteSet]int32{},
		joins:  map[joinKey]int32{},
		inside: map[string]int32{},
	}
	every := policies.ByteSet{^uint64(0) &^ 1, ^uint64(0), ^uint64(0), ^uint64(0)}
	n.any = n.internSet(every)
	every['/'>>6] &^= 1 << ('/' & 63)
	n.inName = n.internSet(every)
	return n
}

// add adds one matcher.
func (n *nfa) add(m Matcher) error {
	switch m.Kind {
	case Exact:
		n.accept(n.path(m.Text), m.Index)
	case ExecName:
		n.accept(n.literal(n.afterSlash(), m.Text), m.Index)
	case Directory:
		n.directory(m)
	case Pattern:
		p, err := policies.ParsePattern(m.Text)
		if err != nil {
			return err
		}
		n.accept(n.sequence(root, p.Nodes), m.Index)
	default:
		return fmt.Errorf("matcher %d has the unknown kind %d", m.Index, m.Kind)
	}
	return nil
}

// directory accepts the directory itself and what is below it.
func (n *nfa) directory(m Matcher) {
	itself := strings.TrimSuffix(m.Text, "/")
	if itself == "" {
		itself = "/"
	}
	n.accept(n.path(itself), m.Index)
	slash := n.path(m.Text)
	key, set := "-"+m.Text, n.inName
	if m.Recursive {
		key, set = m.Text, n.any
	}
	inside, ok := n.inside[key]
	if !ok {
		inside = n.loop(set)
		n.edge(slash, set, inside)
		n.inside[key] = inside
	}
	n.accept(inside, m.Index)
}

// nest tells every recursive directory's inside of the one around it. It is called once, after the last add.
func (n *nfa) nest() {
	var dirs []string
	for key := range n.inside {
		if key[0] == '/' {
			dirs = append(dirs, key)
		}
	}
	slices.Sort(dirs) // a directory comes before what lies in it
	var around []string
	for _, dir := range dirs {
		for len(around) > 0 && !strings.HasPrefix(dir, around[len(around)-1]) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			outer := n.inside[around[len(around)-1]]
			x := n.extra(n.inside[dir])
			x.within = outer
			x.accept = append(x.accept, n.extras[n.nodes[outer].extra].accept...)
		}
		around = append(around, dir)
	}
}

// afterSlash is the state behind every '/' of a path, where execnames begin.
func (n *nfa) afterSlash() int32 {
	const key = "*" // no directory's key
	if at, ok := n.inside[key]; ok {
		return at
	}
	everywhere := n.loop(n.any)
	x := n.extra(root)
	x.empty = append(x.empty, everywhere)
	at := n.child(everywhere, '/')
	n.inside[key] = at
	return at
}

// sequence adds a pattern's nodes behind a state and returns the state behind them.
func (n *nfa) sequence(from int32, nodes []policies.PatternNode) int32 {
	for _, p := range nodes {
		switch p.Op {
		case policies.PatternLiteral:
			from = n.literal(from, p.Literal)
		case policies.PatternSet:
			from = n.set(from, p.Set)
		case policies.PatternStar:
			from = n.star(from, n.inName)
		case policies.PatternDoubleStar:
			from = n.star(from, n.any)
		case policies.PatternAlternatives:
			from = n.alternatives(from, p.Alternatives)
		}
	}
	return from
}

// alternatives joins the ends of all alternatives in one state.
func (n *nfa) alternatives(from int32, alternatives [][]policies.PatternNode) int32 {
	key := joinKey{from, fmt.Sprintf("%#v", alternatives)}
	if join, ok := n.joins[key]; ok {
		return join
	}
	join := n.state()
	for _, a := range alternatives {
		x := n.extra(n.sequence(from, a))
		x.empty = append(x.empty, join)
	}
	n.joins[key] = join
	return join
}

// star is the state behind any number of bytes of the set.
func (n *nfa) star(from, set int32) int32 {
	x := n.extra(from)
	known := &x.star
	if set == n.any {
		known = &x.double
	}
	if *known != 0 {
		return *known
	}
	at := n.loop(set)
	x = n.extra(from) // loop may have moved it
	if set == n.any {
		x.double = at
	} else {
		x.star = at
	}
	x.empty = append(x.empty, at)
	return at
}

// set is the state behind one byte of the set.
func (n *nfa) set(from int32, set policies.ByteSet) int32 {
	id := n.internSet(set)
	for _, e := range n.extra(from).sets {
		if e.set == id && !n.isLoop(e.to) {
			return e.to
		}
	}
	to := n.state()
	n.edge(from, id, to)
	return to
}

// isLoop says whether a state leads back to itself, as that of a star or inside a directory does: more
// strings lead there than end in one byte of a set.
func (n *nfa) isLoop(at int32) bool {
	x := n.nodes[at].extra
	return x != 0 && slices.ContainsFunc(n.extras[x].sets, func(e setEdge) bool { return e.to == at })
}

// path is the state behind the bytes of a text that begins a path.
func (n *nfa) path(text string) int32 {
	same := 0
	for same < len(text) && same < len(n.last) && text[same] == n.last[same] {
		same++
	}
	n.way = n.way[:same]
	at := int32(root)
	if same > 0 {
		at = n.way[same-1]
	}
	for i := same; i < len(text); i++ {
		at = n.child(at, text[i])
		n.way = append(n.way, at)
	}
	n.last = text
	return at
}

// literal is the state behind the bytes of text.
func (n *nfa) literal(from int32, text string) int32 {
	for i := range len(text) {
		from = n.child(from, text[i])
	}
	return from
}

// child is the state behind one byte.
func (n *nfa) child(from int32, label byte) int32 {
	for c := n.nodes[from].first; c != 0; c = n.nodes[c].next {
		if n.nodes[c].label == label {
			return c
		}
	}
	c := n.state()
	n.nodes[c].label = label
	n.nodes[c].next = n.nodes[from].first
	n.nodes[from].first = c
	return c
}

func (n *nfa) state() int32 {
	n.nodes = append(n.nodes, node{})
	return int32(len(n.nodes) - 1)
}

// loop is a new state that every byte of the set leads back to.
func (n *nfa) loop(set int32) int32 {
	at := n.state()
	n.edge(at, set, at)
	return at
}

func (n *nfa) edge(from, set, to int32) {
	x := n.extra(from)
	x.sets = append(x.sets, setEdge{set, to})
}

func (n *nfa) accept(at int32, index int) {
	x := n.extra(at)
	x.accept = append(x.accept, index)
}

// extra is the rare part of a state, made when first asked for. The pointer holds until the next call.
func (n *nfa) extra(at int32) *extra {
	if n.nodes[at].extra == 0 {
		n.extras = append(n.extras, extra{})
		n.nodes[at].extra = int32(len(n.extras) - 1)
	}
	return &n.extras[n.nodes[at].extra]
}

func (n *nfa) internSet(set policies.ByteSet) int32 {
	id, ok := n.setID[set]
	if !ok {
		id = int32(len(n.sets))
		n.sets = append(n.sets, set)
		n.setID[set] = id
	}
	return id
}
