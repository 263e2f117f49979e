// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// Rank says how specific a rule is; the fields stand in the order in which they count.
//
// SEMANTICS, Decision 2: "a rule with fromSource before one without; then exact path, execname, pattern
// (longer literal prefix, as written, first), directory (longer path first; at equal path non-recursive
// before recursive). Protocols, domains and capabilities have no rank of their own: only the source counts."
type Rank struct {
	FromSource bool
	Object     ObjectRank
	// Length is the literal prefix of a pattern or the path of a directory, in bytes, as written.
	Length int
	// Flat is true for a non-recursive directory.
	Flat bool
}

// ObjectRank orders the kinds of object; a greater one is more specific.
type ObjectRank uint8

// The ranks of objects.
const (
	RankUnranked ObjectRank = iota // protocols, domains, capabilities
	RankDirectory
	RankPattern
	RankExecName
	RankExact
)

// String is the rank's name in explanations.
func (r ObjectRank) String() string {
	switch r {
	case RankDirectory:
		return "directory"
	case RankPattern:
		return "pattern"
	case RankExecName:
		return "execname"
	case RankExact:
		return "exact path"
	default:
		return "unranked"
	}
}

// rankOf ranks a rule by its object as written, never by a resolved spelling.
func rankOf(r *Rule) Rank {
	rank := Rank{FromSource: len(r.Sources) > 0}
	switch r.Rule.Object.Kind {
	case policies.ObjectPath:
		rank.Object = RankExact
	case policies.ObjectExecName:
		rank.Object = RankExecName
	case policies.ObjectPattern:
		rank.Object = RankPattern
		rank.Length = len(literalPrefix(r.Rule.Object.Value))
	case policies.ObjectDirectory:
		rank.Object = RankDirectory
		rank.Length = len(r.Rule.Object.Value)
		rank.Flat = !r.Rule.Object.Recursive
	}
	return rank
}

// Compare is negative when a is less specific than b, zero when they are equal.
func (a Rank) Compare(b Rank) int {
	return cmp.Or(
		compareBool(a.FromSource, b.FromSource),
		cmp.Compare(a.Object, b.Object),
		cmp.Compare(a.Length, b.Length),
		compareBool(a.Flat, b.Flat),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// The layout of a priority, from the lowest bit.
const (
	priorityDeny    = 1 << 0
	priorityFlat    = 1 << 1
	priorityLength  = 2  // 13 bits: a path is at most 4095 bytes, a directory one more with its slash
	priorityObject  = 15 // 3 bits, never 0 in all
	prioritySource  = 18
	priorityPresent = 1 << 19 // makes every rule's priority greater than "no rule"
	lengthLimit     = 1<<13 - 1
)

// priority packs a rank and a verdict into one number that orders like (Rank, then Deny before Permit).
func priority(rank Rank, verdict Verdict) uint32 {
	p := uint32(priorityPresent)
	p |= uint32(min(rank.Length, lengthLimit)) << priorityLength
	p |= uint32(rank.Object) << priorityObject
	if rank.FromSource {
		p |= 1 << prioritySource
	}
	if rank.Flat {
		p |= priorityFlat
	}
	if verdict == Deny {
		p |= priorityDeny
	}
	return p
}

// literalPrefix is what a pattern must begin with: the bytes before its first special character, escapes
// taken off. It needs no parsing, so that most paths are rejected cheaply.
func literalPrefix(pattern string) string {
	i := strings.IndexAny(pattern, `*?[{\`)
	if i < 0 {
		return pattern
	}
	if pattern[i] != '\\' {
		return pattern[:i]
	}
	var prefix strings.Builder
	for at := 0; at < len(pattern); at++ {
		switch c := pattern[at]; c {
		case '*', '?', '[', '{':
			return prefix.String()
		case '\\':
			at++
			if at == len(pattern) {
				return prefix.String()
			}
			prefix.WriteByte(pattern[at])
		default:
			prefix.WriteByte(c)
		}
	}
	return prefix.String()
}
