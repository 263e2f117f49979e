// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import "strings"

// demandComponents puts a byte that is not '/' before each star that is a whole path component, as AppArmor
// reads it: after a slash, and before a slash or the end. afterSlash and beforeEdge say what surrounds nodes.
func demandComponents(nodes []PatternNode, afterSlash, beforeEdge bool) []PatternNode {
	out := make([]PatternNode, 0, len(nodes)+1)
	for i, n := range nodes {
		before, after := afterSlash, beforeEdge
		if i > 0 {
			before = endsInSlash(nodes[i-1])
		}
		if i < len(nodes)-1 {
			after = beginsWithSlash(nodes[i+1])
		}
		switch n.Op {
		case PatternStar, PatternDoubleStar:
			if before && after {
				out = append(out, PatternNode{Op: PatternSet, Set: notSlash()})
			}
		case PatternAlternatives:
			alternatives := make([][]PatternNode, len(n.Alternatives))
			for j, a := range n.Alternatives {
				alternatives[j] = demandComponents(a, before, after)
			}
			n.Alternatives = alternatives
		}
		out = append(out, n)
	}
	return out
}

// endsInSlash says that everything n matches ends in '/'.
func endsInSlash(n PatternNode) bool {
	switch n.Op {
	case PatternLiteral:
		return n.Literal[len(n.Literal)-1] == '/'
	case PatternAlternatives:
		for _, a := range n.Alternatives {
			if len(a) == 0 || !endsInSlash(a[len(a)-1]) {
				return false
			}
		}
		return true
	}
	return false
}

// beginsWithSlash says that everything n matches begins with '/'.
func beginsWithSlash(n PatternNode) bool {
	switch n.Op {
	case PatternLiteral:
		return n.Literal[0] == '/'
	case PatternAlternatives:
		for _, a := range n.Alternatives {
			if len(a) == 0 || !beginsWithSlash(a[0]) {
				return false
			}
		}
		return true
	}
	return false
}

// canStartWithSlash says whether something that nodes match begins with '/', and whether they match "".
func canStartWithSlash(nodes []PatternNode) (slash, empty bool) {
	for _, n := range nodes {
		switch n.Op {
		case PatternLiteral:
			return n.Literal[0] == '/', false
		case PatternSet:
			return false, false
		case PatternDoubleStar:
			return true, true
		case PatternAlternatives:
			anyEmpty := false
			for _, a := range n.Alternatives {
				s, e := canStartWithSlash(a)
				if s {
					return true, true
				}
				anyEmpty = anyEmpty || e
			}
			if !anyEmpty {
				return false, false
			}
		}
	}
	return false, true
}

// Match says whether the whole path matches. It is the plain reference, linear in the path times the
// pattern; enforcement compiles Nodes into an automaton instead.
func (p Pattern) Match(path string) bool {
	ends := matchNodes(p.Nodes, path, positions{0: true})
	return ends[len(path)]
}

// positions is a set of offsets into the path.
type positions map[int]bool

func matchNodes(nodes []PatternNode, path string, from positions) positions {
	for _, n := range nodes {
		if len(from) == 0 {
			return from
		}
		from = matchNode(n, path, from)
	}
	return from
}

func matchNode(n PatternNode, path string, from positions) positions {
	to := positions{}
	switch n.Op {
	case PatternAlternatives:
		for _, a := range n.Alternatives {
			for at := range matchNodes(a, path, from) {
				to[at] = true
			}
		}
	case PatternStar, PatternDoubleStar:
		for at := range from {
			to.run(path, at, n.Op == PatternStar)
		}
	case PatternLiteral:
		for at := range from {
			if strings.HasPrefix(path[at:], n.Literal) {
				to[at+len(n.Literal)] = true
			}
		}
	case PatternSet:
		for at := range from {
			if at < len(path) && n.Set.Has(path[at]) {
				to[at+1] = true
			}
		}
	}
	return to
}

// run adds at and everything after it, up to the next slash when stop is set.
func (to positions) run(path string, at int, stop bool) {
	for ; !to[at]; at++ {
		to[at] = true
		if at == len(path) || stop && path[at] == '/' {
			return
		}
	}
}
