// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestConfinedTo: which selectors can be shown to stay on the hosts web-* and db-1.
func TestConfinedTo(t *testing.T) {
	t.Parallel()
	hosts := []HostPattern{"web-*", "db-1"}
	for _, c := range []struct {
		kind     Kind
		node     map[string]string
		confined bool
	}{
		{KindHost, map[string]string{LabelHostname: "web-1"}, true},
		{KindHost, map[string]string{labelHost: "web-1, db-1"}, true},
		{KindHost, map[string]string{LabelHostname: "db-1", "role": "x"}, true},
		{KindHost, map[string]string{labelHostReg: "web-*"}, true},
		{KindHost, map[string]string{labelHostReg: "web-1[0-9]*"}, true},
		{KindHost, map[string]string{labelHostRegKube: "db-1"}, true},
		{KindNetwork, map[string]string{LabelHostname: "web-1"}, true},
		{KindHost, nil, false},
		{KindHost, map[string]string{LabelHostname: "*"}, false},
		{KindHost, map[string]string{LabelHostname: "web-1,*"}, false},
		{KindHost, map[string]string{LabelHostname: "web-1,mail"}, false},
		{KindHost, map[string]string{LabelHostname: "db-10"}, false},
		{KindHost, map[string]string{"role": "web"}, false},
		{KindHost, map[string]string{labelHostReg: "web-1|mail"}, false},
		{KindHost, map[string]string{labelHostReg: "(web-1)?mail"}, false},
		{KindHost, map[string]string{labelHostReg: "(?i)web-1"}, false},
		{KindHost, map[string]string{labelHostReg: "we*"}, false},
		{KindHost, map[string]string{labelHostReg: "db-1.*"}, false},
		{KindHost, map[string]string{labelHostReg: "("}, false},
		{KindContainer, map[string]string{LabelHostname: "web-1"}, false},
		{KindCluster, nil, false},
	} {
		p := &Policy{ID: ID{Kind: c.kind}, Selector: Selector{Node: c.node}}
		if got := p.ConfinedTo(hosts); got != c.confined {
			t.Errorf("%s %v: %v, wanted %v", c.kind, c.node, got, c.confined)
		}
	}
}

// TestConfinedSelects holds the proof against the selection: a policy that counts as confined selects no other host.
func TestConfinedSelects(t *testing.T) {
	t.Parallel()
	patterns := []HostPattern{"ab*", "b"}
	names := []string{"", "a", "b", "ab", "ba", "aba", "abb", "bb", "abab", "*", "ab*", "x"}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible
	letters := []rune("ab*.|()[]?+^$, x\\")
	keys := []string{labelHost, LabelHostname, labelHostReg, labelHostRegKube, "role"}
	confined := 0
	for range 200_000 {
		node := map[string]string{}
		for range 1 + random.IntN(2) {
			var text []rune
			for range random.IntN(7) {
				text = append(text, letters[random.IntN(len(letters))])
			}
			node[keys[random.IntN(len(keys))]] = string(text)
		}
		p := &Policy{ID: ID{Kind: KindHost}, Selector: Selector{Node: node}}
		if !p.ConfinedTo(patterns) {
			continue
		}
		confined++
		list := conditions(p)
		for _, name := range names {
			s := host(name)
			maps.Copy(s.Labels, map[string]string{"role": node["role"]})
			selects := !slices.ContainsFunc(list, func(c condition) bool { return !c.holds(&s) })
			inside := allCovered([]HostPattern{HostPattern(name)}, patterns)
			if selects && !inside {
				t.Fatalf("%v counts as confined to %v and selects %q", node, patterns, name)
			}
		}
	}
	if confined < 1000 {
		t.Errorf("only %d selectors were confined: the test proves nothing", confined)
	}
}
