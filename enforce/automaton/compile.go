// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// slack is how many states more than linear the result may have: room for patterns to combine.
const slack = 1 << 14

// measuring is how much work may go into finding out which patterns fit alone: about a second's. It is used
// only when not all of them fit together.
const measuring = 1 << 22

// Compile makes as few automata as the budget allows, at most MaxAutomata; a path matches the union of what
// each of them says. What Excess names is left out.
func Compile(matchers []Matcher, opts Options) ([]*DFA, []Excluded) {
	excluded := Excess(matchers, opts)
	kept := without(matchers, excluded)
	if len(kept) == 0 {
		return nil, excluded
	}
	if promising(kept) {
		if d, err := build(kept, opts); err == nil {
			return []*DFA{d}, excluded
		}
	}
	var automata []*DFA
	for _, group := range split(kept, opts) {
		d, err := build(group, opts)
		if err != nil {
			// Excess and split use the same measure, so this cannot be; if it ever is, it is said.
			for _, m := range group {
				excluded = append(excluded, Excluded{m.Index, err.Error()})
			}
			continue
		}
		automata = append(automata, d)
	}
	return automata, distinct(excluded)
}

// promising is false when one automaton for everything would surely be too large, so that trying would only
// cost time: inside each directory, every execname and every pattern that holds everywhere starts anew.
func promising(matchers []Matcher) bool {
	directories, everywhere := 0, 0
	for _, m := range matchers {
		switch {
		case m.Kind == Directory:
			directories++
		case m.Kind == ExecName, m.Kind == Pattern && strings.HasPrefix(m.Text, "/**"):
			everywhere += len(m.Text)
		}
	}
	// Names share about half of their bytes with each other.
	return directories*everywhere/2 <= 2*slack
}

// Excess names the matchers that do not fit into the automata that Compile may make. Without its answer, the
// rest always fits.
func Excess(matchers []Matcher, opts Options) []Excluded {
	literals, names, patterns := byKind(matchers)
	excluded := tooLong(literals, opts)
	excluded = append(excluded, tooLong(names, opts)...)
	_, tooMany := bins(patterns, opts)
	return distinct(append(excluded, tooMany...))
}

// split gives literals, execnames and patterns automata of their own, patterns up to two.
func split(matchers []Matcher, opts Options) [][]Matcher {
	literals, names, patterns := byKind(matchers)
	groups, _ := bins(patterns, opts)
	groups = append(groups, literals, names)
	return slices.DeleteFunc(groups, func(g []Matcher) bool { return len(g) == 0 })
}

func byKind(matchers []Matcher) (literals, names, patterns []Matcher) {
	literals = make([]Matcher, 0, len(matchers))
	for _, m := range matchers {
		switch m.Kind {
		case ExecName:
			names = append(names, m)
		case Pattern:
			patterns = append(patterns, m)
		default:
			literals = append(literals, m)
		}
	}
	return literals, names, patterns
}

// build makes one automaton of all matchers, or says that they exceed the budget.
func build(matchers []Matcher, opts Options) (*DFA, error) {
	d, _, err := determine(matchers, opts)
	if err != nil {
		return nil, err
	}
	// Without patterns it is a trie, in which nearly every end has a set of its own: nothing would be merged.
	if !slices.ContainsFunc(matchers, func(m Matcher) bool { return m.Kind == Pattern }) {
		return d, nil
	}
	return minimise(d), nil
}

// determine is build without minimising, which decides nothing about what fits.
func determine(matchers []Matcher, opts Options) (*DFA, int, error) {
	n := newNFA()
	for _, m := range matchers {
		if err := n.add(m); err != nil {
			return nil, 0, err
		}
	}
	n.nest()
	return determinise(n, min(2*len(n.nodes)+slack, opts.maxStates()))
}

func (o Options) maxStates() int { return cmp.Or(o.MaxStates, DefaultMaxStates) }

// tooLong names the literals, longest last in the order given, for whose bytes even a trie has no room.
func tooLong(literals []Matcher, opts Options) []Excluded {
	// Each byte is a state at most, and each directory adds the one inside it.
	total := 3
	for _, m := range literals {
		total += len(m.Text) + 1
	}
	if total <= opts.maxStates() {
		return nil
	}
	var excluded []Excluded
	n, inside := newNFA(), 0
	for _, m := range literals {
		if len(n.nodes)+len(m.Text)+inside+8 > opts.maxStates() {
			excluded = append(excluded, Excluded{m.Index, fmt.Sprintf("all paths together need more than %d states", opts.maxStates())})
			continue
		}
		if m.Kind == Directory {
			inside += 2
		}
		if err := n.add(m); err != nil {
			excluded = append(excluded, Excluded{m.Index, err.Error()})
		}
	}
	return excluded
}

// bins divides patterns between at most two automata, in the order of how many states each needs alone, so
// that as many as possible fit. What is left is excluded.
func bins(patterns []Matcher, opts Options) (fit [][]Matcher, excluded []Excluded) {
	if len(patterns) == 0 {
		return nil, nil
	}
	if _, _, err := determine(patterns, opts); err == nil {
		return [][]Matcher{patterns}, nil
	}
	rest, excluded := bySize(patterns, opts)
	for range MaxAutomata - 2 {
		n := longestFit(rest, opts)
		if n == 0 {
			break
		}
		fit = append(fit, rest[:n])
		rest = rest[n:]
	}
	for _, m := range rest {
		excluded = append(excluded, Excluded{m.Index, "together with the other patterns it needs more states than the budget allows"})
	}
	return fit, excluded
}

// longestFit is the length of the longest beginning of the list that one automaton holds. Every pattern
// more means at least as many states, so halving finds it.
func longestFit(patterns []Matcher, opts Options) int {
	fits, exceeds := 0, len(patterns)+1
	for exceeds-fits > 1 {
		middle := (fits + exceeds) / 2
		if _, _, err := determine(patterns[:middle], opts); err == nil {
			fits = middle
		} else {
			exceeds = middle
		}
	}
	return fits
}

// bySize sorts the patterns that fit alone by how many states they need alone. Those with the fewest stars
// are measured first: when the work allowed is used up, it is the most complex ones that are left out.
func bySize(patterns []Matcher, opts Options) (sorted []Matcher, excluded []Excluded) {
	patterns = slices.Clone(patterns)
	slices.SortStableFunc(patterns, func(a, b Matcher) int {
		return cmp.Or(cmp.Compare(stars(a), stars(b)), cmp.Compare(a.Index, b.Index))
	})
	size, spent := make(map[string]int, len(patterns)), 0
	for _, m := range patterns {
		if _, known := size[m.Text]; !known {
			if spent > measuring {
				excluded = append(excluded, Excluded{m.Index, "there are too many complex patterns to find out whether it fits"})
				continue
			}
			states, work := statesAlone(m, opts)
			size[m.Text] = states
			spent += work
		}
		if size[m.Text] > 0 {
			sorted = append(sorted, m)
			continue
		}
		excluded = append(excluded, Excluded{m.Index, "the pattern alone needs more states than the budget allows"})
	}
	slices.SortStableFunc(sorted, func(a, b Matcher) int {
		return cmp.Or(cmp.Compare(size[a.Text], size[b.Text]), cmp.Compare(a.Index, b.Index))
	})
	return sorted, excluded
}

func stars(m Matcher) int { return strings.Count(m.Text, "*") }

// statesAlone is how many states a pattern needs, 0 if more than the budget, and how much work that was.
func statesAlone(m Matcher, opts Options) (states, work int) {
	d, work, err := determine([]Matcher{m}, opts)
	if err != nil {
		return 0, work
	}
	return len(d.States), work
}

// without leaves out every matcher whose index is excluded, whatever its spelling.
func without(matchers []Matcher, excluded []Excluded) []Matcher {
	if len(excluded) == 0 {
		return matchers
	}
	out := map[int]bool{}
	for _, e := range excluded {
		out[e.Index] = true
	}
	return slices.DeleteFunc(slices.Clone(matchers), func(m Matcher) bool { return out[m.Index] })
}

// distinct sorts by index and keeps one reason for each.
func distinct(excluded []Excluded) []Excluded {
	slices.SortStableFunc(excluded, func(a, b Excluded) int { return cmp.Compare(a.Index, b.Index) })
	return slices.CompactFunc(excluded, func(a, b Excluded) bool { return a.Index == b.Index })
}
