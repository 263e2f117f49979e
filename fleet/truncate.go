// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// section is one list of a report that may be cut at its end.
type section struct {
	name  string
	sizes []int // encoded bytes of each entry, its comma included
	total int
	cut   func(keep int)
}

func newSection[T any](name string, list *[]T) *section {
	s := &section{name: name, cut: func(keep int) { *list = (*list)[:keep] }}
	for _, e := range *list {
		s.add(e)
	}
	return s
}

// newMapSection cuts the last keys first.
func newMapSection[V any](name string, m map[string]V) *section {
	keys := slices.Sorted(maps.Keys(m))
	s := &section{name: name, cut: func(keep int) {
		for _, k := range keys[keep:] {
			delete(m, k)
		}
	}}
	for _, k := range keys {
		s.add(map[string]V{k: m[k]})
	}
	return s
}

func (s *section) add(entry any) {
	n := encodedSize(entry)
	s.sizes = append(s.sizes, n)
	s.total += n
}

// truncated cuts the lists of a normalized report until it fits, always taking from the one that is largest.
// encoding/json never writes fewer bytes than the canonical form, so its sizes are an upper bound.
func truncated(r Report) Report {
	sections := []*section{
		newSection("gaps", &r.Gaps),
		newSection("drift", &r.Drift),
		newSection("subjects", &r.Subjects),
		newSection("events", &r.Events),
		newSection("conditions", &r.Conditions),
		newSection("releases", &r.Releases),
		newSection("lsms", &r.LSMs),
		newMapSection("losses", r.Losses),
		newMapSection("timings", r.Timings),
		newMapSection("labels", r.Inventory.Labels),
	}
	size := encodedSize(r) + 32*len(sections) // room for Truncated itself
	keep := make(map[*section]int, len(sections))
	for _, s := range sections {
		keep[s] = len(s.sizes)
	}
	for size > MaxReport {
		big := slices.MaxFunc(sections, func(a, b *section) int { return a.total - b.total })
		if keep[big] == 0 {
			break
		}
		keep[big]--
		last := big.sizes[keep[big]]
		big.total -= last
		size -= last
	}
	for _, s := range sections {
		cut := len(s.sizes) - keep[s]
		if cut == 0 {
			continue
		}
		s.cut(keep[s])
		if r.Truncated == nil {
			r.Truncated = map[string]int{}
		}
		r.Truncated[s.name] += cut
	}
	return r
}

// encodedSize counts a newline at the end, which stands for the comma of a list entry. It is MaxReport for what cannot be encoded, so that it goes first.
func encodedSize(v any) int {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return MaxReport
	}
	return b.Len()
}
