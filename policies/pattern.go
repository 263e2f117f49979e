// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPattern is the kind of every error of ParsePattern.
var ErrPattern = errors.New("bad pattern")

// The limits of one pattern.
const (
	// MaxPath is the longest path a rule may name, in bytes: the kernel's PATH_MAX without its final NUL.
	MaxPath = 4095
	// MaxPatternDepth is how deep {a,b} may nest.
	MaxPatternDepth = 8
)

// PatternError says what is wrong with a pattern and at which byte of it, counted from 0.
type PatternError struct {
	Offset int
	Reason string
	Advice string
}

// Error implements error.
func (e *PatternError) Error() string {
	return fmt.Sprintf("%s (at byte %d of the pattern)", e.Reason, e.Offset+1)
}

// Unwrap makes errors.Is(err, ErrPattern) true.
func (e *PatternError) Unwrap() error { return ErrPattern }

// Hint says what to write instead.
func (e *PatternError) Hint() string { return e.Advice }

// Pattern is a parsed matchPatterns pattern. It matches a whole path: it is anchored at both ends.
//
// The meaning is complete in Nodes; who compiles it needs none of the syntax. In particular a star that is
// a whole path component ("/a/*", "/a/**", "/a/**/b") needs at least one byte, which is not '/'; the parser
// writes that as a PatternSet before the star, so "/a/**" matches neither "/a" nor "/a/".
type Pattern struct {
	Source string
	Nodes  []PatternNode
}

// PatternOp is the kind of a PatternNode.
type PatternOp uint8

// The operators. None of them matches a NUL byte.
const (
	// PatternLiteral matches exactly the bytes of Literal (never empty).
	PatternLiteral PatternOp = iota + 1
	// PatternSet matches one byte that Set contains ("?", "[a-z]", "[^a]"); Set never contains '/'.
	PatternSet
	// PatternStar matches any number of bytes, none of them '/'.
	PatternStar
	// PatternDoubleStar matches any number of bytes, '/' among them.
	PatternDoubleStar
	// PatternAlternatives matches what one of Alternatives matches; an alternative may be empty.
	PatternAlternatives
)

// PatternNode is one element of the sequence that a pattern is.
type PatternNode struct {
	Op           PatternOp
	Literal      string
	Set          ByteSet
	Alternatives [][]PatternNode
}

// ByteSet is a set of byte values.
type ByteSet [4]uint64

// Has says whether the set contains b.
func (s *ByteSet) Has(b byte) bool { return s[b>>6]&(1<<(b&63)) != 0 }

func (s *ByteSet) add(b byte)    { s[b>>6] |= 1 << (b & 63) }
func (s *ByteSet) remove(b byte) { s[b>>6] &^= 1 << (b & 63) }

func (s *ByteSet) addRange(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		s.add(byte(b))
	}
}

func (s *ByteSet) invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// notSlash is every byte that a single component of a path can hold.
func notSlash() ByteSet {
	var s ByteSet
	s.invert()
	s.remove('/')
	s.remove(0)
	return s
}

// LiteralPrefix is the text before the first special character, as written, with escapes taken off.
// A longer one makes a pattern more specific.
func (p Pattern) LiteralPrefix() string {
	if len(p.Nodes) == 0 || p.Nodes[0].Op != PatternLiteral {
		return ""
	}
	return p.Nodes[0].Literal
}

// IsLiteral says that the pattern has no special character and Nodes is at most one literal.
func (p Pattern) IsLiteral() bool {
	return len(p.Nodes) == 0 || len(p.Nodes) == 1 && p.Nodes[0].Op == PatternLiteral
}

// ParsePattern parses a pattern:
//
//   - any number of bytes, none of them '/'
//     **     any number of bytes; it may stand anywhere
//     ?      one byte, not '/'
//     [a-z]  one byte of the class;  [^a-z] one byte outside it;  never '/'
//     {a,b}  one of the alternatives; they may be empty and hold patterns, also nested ones
//     \c     the byte c itself
func ParsePattern(source string) (Pattern, error) {
	if source == "" {
		return Pattern{}, &PatternError{0, "empty pattern", "write a path with *, **, ?, [a-z] or {a,b}"}
	}
	if len(source) > MaxPath {
		return Pattern{}, &PatternError{MaxPath, fmt.Sprintf("pattern of %d bytes exceeds the limit of %d", len(source), MaxPath), "no path in the kernel is longer"}
	}
	if i := strings.IndexByte(source, 0); i >= 0 {
		return Pattern{}, &PatternError{i, "NUL byte in pattern", "no path contains one"}
	}
	r := patternReader{text: source}
	nodes, err := r.sequence(0)
	if err != nil {
		return Pattern{}, err
	}
	nodes = demandComponents(nodes, false, true)
	p := Pattern{Source: source, Nodes: nodes}
	if first, _ := canStartWithSlash(nodes); !first {
		return Pattern{}, &PatternError{0, "pattern can never match: every path begins with /", "begin it with / or with **/"}
	}
	return p, nil
}

// patternReader is a recursive-descent parser whose depth MaxPatternDepth bounds.
type patternReader struct {
	text string
	at   int
}

func (r *patternReader) fail(at int, reason, advice string) error {
	return &PatternError{Offset: at, Reason: reason, Advice: advice}
}

// sequence reads until the end, or inside braces until ',' or '}', which it leaves to the caller.
func (r *patternReader) sequence(depth int) ([]PatternNode, error) {
	var nodes []PatternNode
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			nodes = append(nodes, PatternNode{Op: PatternLiteral, Literal: literal.String()})
			literal.Reset()
		}
	}
	for r.at < len(r.text) {
		c := r.text[r.at]
		if depth > 0 && (c == ',' || c == '}') {
			break
		}
		if strings.IndexByte(`*?[]{}\`, c) < 0 {
			literal.WriteByte(c)
			r.at++
			continue
		}
		if c == '\\' {
			if r.at+1 == len(r.text) {
				return nil, r.fail(r.at, `pattern ends in a lone \`, `write \\ for the character itself`)
			}
			literal.WriteByte(r.text[r.at+1])
			r.at += 2
			continue
		}
		flush()
		node, err := r.special(c, depth)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	flush()
	return nodes, nil
}

// special reads one element that is not a literal.
func (r *patternReader) special(c byte, depth int) (PatternNode, error) {
	switch c {
	case '*':
		start := r.at
		for r.at < len(r.text) && r.text[r.at] == '*' {
			r.at++
		}
		if r.at-start > 1 {
			return PatternNode{Op: PatternDoubleStar}, nil
		}
		return PatternNode{Op: PatternStar}, nil
	case '?':
		r.at++
		return PatternNode{Op: PatternSet, Set: notSlash()}, nil
	case '[':
		set, err := r.class()
		return PatternNode{Op: PatternSet, Set: set}, err
	case '{':
		return r.alternatives(depth + 1)
	}
	return PatternNode{}, r.fail(r.at, fmt.Sprintf("%q closes nothing", c), fmt.Sprintf(`write \%c for the character itself`, c))
}

// alternatives reads {a,b}; r.at is at the opening brace.
func (r *patternReader) alternatives(depth int) (PatternNode, error) {
	open := r.at
	if depth > MaxPatternDepth {
		return PatternNode{}, r.fail(open, fmt.Sprintf("{ } nested deeper than %d", MaxPatternDepth), "write several patterns")
	}
	node := PatternNode{Op: PatternAlternatives}
	for {
		r.at++ // the brace or the comma
		nodes, err := r.sequence(depth)
		if err != nil {
			return PatternNode{}, err
		}
		node.Alternatives = append(node.Alternatives, nodes)
		if r.at == len(r.text) {
			return PatternNode{}, r.fail(open, "{ without its }", `write \{ for the character itself`)
		}
		if r.text[r.at] == '}' {
			r.at++
			break
		}
	}
	if len(node.Alternatives) < 2 {
		return PatternNode{}, r.fail(open, "{ } with a single alternative", `separate alternatives by commas, or write \{ and \} for the characters themselves`)
	}
	return node, nil
}

// class reads [a-z] or [^a-z]; r.at is at the opening bracket.
func (r *patternReader) class() (ByteSet, error) {
	open := r.at
	r.at++
	negated := r.at < len(r.text) && r.text[r.at] == '^'
	if negated {
		r.at++
	} else if r.at < len(r.text) && r.text[r.at] == '!' {
		return ByteSet{}, r.fail(r.at, "[! is not a negation here", `write [^ to negate, or [\! for the character itself`)
	}
	var set ByteSet
	for first := true; ; first = false {
		if r.at == len(r.text) {
			return ByteSet{}, r.fail(open, "[ without its ]", `write \[ for the character itself`)
		}
		if r.text[r.at] == ']' {
			if first {
				return ByteSet{}, r.fail(open, "empty character class", `write \] for the character itself`)
			}
			r.at++
			break
		}
		if err := r.classItem(&set); err != nil {
			return ByteSet{}, err
		}
	}
	if negated {
		set.invert()
	}
	set.remove('/')
	set.remove(0)
	if set == (ByteSet{}) {
		return ByteSet{}, r.fail(open, "character class that matches nothing", "list the characters that may stand here; / is never one of them")
	}
	return set, nil
}

// classItem adds one character or one range to the class.
func (r *patternReader) classItem(set *ByteSet) error {
	start := r.at
	lo, err := r.classByte()
	if err != nil {
		return err
	}
	if r.at+1 >= len(r.text) || r.text[r.at] != '-' || r.text[r.at+1] == ']' {
		set.add(lo)
		return nil
	}
	r.at++
	hi, err := r.classByte()
	if err != nil {
		return err
	}
	if hi < lo {
		return r.fail(start, fmt.Sprintf("range %c-%c runs backwards", lo, hi), fmt.Sprintf("write %c-%c, or put the - last for the character itself", hi, lo))
	}
	set.addRange(lo, hi)
	return nil
}

// classByte reads one character of a class. Bytes of UTF-8 sequences are refused: a class is one byte, and
// half a character would match what nobody meant.
func (r *patternReader) classByte() (byte, error) {
	c := r.text[r.at]
	if c == '\\' {
		if r.at+1 == len(r.text) {
			return 0, r.fail(r.at, `pattern ends in a lone \`, `write \\ for the character itself, and close the class with ]`)
		}
		r.at++
		c = r.text[r.at]
	}
	if c >= 0x80 {
		return 0, r.fail(r.at, "character class with a character outside ASCII", "write the alternatives as {é,è}")
	}
	if c == '/' {
		return 0, r.fail(r.at, "character class with /", "a class never matches /; write {/,x}")
	}
	r.at++
	return c, nil
}
