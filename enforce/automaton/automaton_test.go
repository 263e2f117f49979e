// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce/automaton"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	const (
		exact     = automaton.Exact
		execname  = automaton.ExecName
		pattern   = automaton.Pattern
		directory = automaton.Directory
	)
	for _, tc := range []struct {
		kind      automaton.Kind
		text      string
		recursive bool
		match     []string
		not       []string
	}{
		{exact, "/bin/sh", false, []string{"/bin/sh"}, []string{"/", "/bin", "/bin/s", "/bin/shh", "/x/bin/sh", "/bin/sh/x"}},
		{exact, "/", false, []string{"/"}, []string{"/a"}},
		{execname, "sh", false, []string{"/sh", "/bin/sh", "/a/b/sh"}, []string{"/", "/sh/a", "/bash", "/bin/shh", "/bin/.sh", "/s"}},
		{execname, "a*b", false, []string{"/bin/a*b"}, []string{"/bin/axb"}},
		{directory, "/a/b/", false, []string{"/a/b", "/a/b/c", "/a/b/ü"}, []string{"/", "/a", "/a/bc", "/a/b/c/d", "/b"}},
		{directory, "/a/b/", true, []string{"/a/b", "/a/b/c", "/a/b/c/d"}, []string{"/", "/a", "/a/bc", "/b/a/b/c"}},
		{directory, "/", false, []string{"/", "/a"}, []string{"/a/b"}},
		{directory, "/", true, []string{"/", "/a", "/a/b"}, nil},
		{directory, "/a*/", true, []string{"/a*", "/a*/b"}, []string{"/ab/b"}},
		{pattern, "/a/*", false, []string{"/a/b"}, []string{"/a", "/a/b/c", "/b"}},
		{pattern, "/a/**", false, []string{"/a/b", "/a/b/c"}, []string{"/a", "/ab"}},
		{pattern, "/**/c", false, []string{"/a/c", "/a/b/c"}, []string{"/c", "/a/cc"}},
		{pattern, "/a/**.log", false, []string{"/a/x.log", "/a/b/x.log", "/a/.log"}, []string{"/a/x.logs", "/ax.log"}},
		{pattern, "/a?c", false, []string{"/abc"}, []string{"/ac", "/a/c", "/abbc"}},
		{pattern, "/[a-c]x[^0-9]", false, []string{"/axa", "/cxx"}, []string{"/dxa", "/ax0", "/ax/"}},
		{pattern, "/{usr/,}bin/{sh,bash}", false, []string{"/bin/sh", "/usr/bin/bash"}, []string{"/usr/sh", "/bin/zsh"}},
		{pattern, `/a\*b`, false, []string{"/a*b"}, []string{"/axb"}},
		{pattern, "/**", false, []string{"/a", "/a/b"}, []string{"/"}},
		{pattern, "/a/{b,b/**}", false, []string{"/a/b", "/a/b/c/d"}, []string{"/a", "/a/bc"}},
	} {
		dfas, excluded := automaton.Compile([]automaton.Matcher{{Index: 7, Kind: tc.kind, Text: tc.text, Recursive: tc.recursive}}, automaton.Options{})
		if len(dfas) != 1 || len(excluded) != 0 {
			t.Fatalf("%s: %d automata, excluded %v", tc.text, len(dfas), excluded)
		}
		for _, path := range tc.match {
			if got := dfas[0].Match(path); !slices.Equal(got, []int{7}) {
				t.Errorf("%s (recursive %t) does not match %s", tc.text, tc.recursive, path)
			}
		}
		for _, path := range tc.not {
			if got := dfas[0].Match(path); len(got) != 0 {
				t.Errorf("%s (recursive %t) matches %s", tc.text, tc.recursive, path)
			}
		}
	}
}

// TestAgainstNaive compares many random sets of matchers, many times, with a matcher that looks at one
// matcher and one path.
func TestAgainstNaive(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		matchers := randomMatchers(r, 1+r.IntN(40))
		opts := automaton.Options{}
		if seed%3 == 0 {
			opts.MaxStates = 60 + r.IntN(400) // several automata, and some excluded
		}
		check(t, fmt.Sprintf("seed %d", seed), matchers, opts, randomPaths(r, matchers, 150))
	}
}

func FuzzAgainstNaive(f *testing.F) {
	f.Add(uint64(1), "/a/**/b*c", "/a/x/bc")
	f.Add(uint64(2), "/{a,b/}*[x-z]?", "/b/yy")
	f.Fuzz(func(t *testing.T, seed uint64, pattern, path string) {
		r := rand.New(rand.NewPCG(seed, 2))
		matchers := randomMatchers(r, 1+r.IntN(20))
		if len(pattern) < 64 && validPattern(pattern) && strings.Count(pattern, "{") <= 3 {
			matchers = append(matchers, automaton.Matcher{Index: len(matchers), Kind: automaton.Pattern, Text: pattern})
		}
		paths := randomPaths(r, matchers, 30)
		if cleanPath(path) {
			paths = append(paths, path)
		}
		check(t, "fuzz", matchers, automaton.Options{}, paths)
	})
}

// check compares Compile's answer with the naive one on every path.
func check(t *testing.T, name string, matchers []automaton.Matcher, opts automaton.Options, paths []string) {
	t.Helper()
	dfas, excluded := automaton.Compile(matchers, opts)
	if len(dfas) > automaton.MaxAutomata {
		t.Fatalf("%s: %d automata", name, len(dfas))
	}
	out := map[int]bool{}
	for _, e := range excluded {
		out[e.Index] = true
	}
	for _, d := range dfas {
		checkForm(t, name, d)
	}
	for _, path := range paths {
		var want, got []int
		for _, m := range matchers {
			if !out[m.Index] && naive(m, path) && !unsettled(m, path) {
				want = append(want, m.Index)
			}
		}
		for _, d := range dfas {
			got = append(got, d.Match(path)...)
		}
		slices.Sort(got)
		got = slices.DeleteFunc(slices.Compact(got), func(i int) bool { return unsettled(matchers[i], path) })
		if !slices.Equal(got, want) {
			t.Fatalf("%s: path %q matches %v, want %v\n%s", name, path, got, want, describe(matchers))
		}
	}
	kept := slices.DeleteFunc(slices.Clone(matchers), func(m automaton.Matcher) bool { return out[m.Index] })
	if again := automaton.Excess(kept, opts); len(again) != 0 {
		t.Fatalf("%s: without what is excluded, %v is excluded too\n%s", name, again, describe(matchers))
	}
}

// unsettled is the one case in which the parser and naive differ: whether a star that some alternatives make
// a whole component and others do not has to take a byte, when only the root directory leaves it none.
func unsettled(m automaton.Matcher, path string) bool {
	return path == "/" && m.Kind == automaton.Pattern && strings.Contains(m.Text, "{")
}

// checkForm checks the invariants that a backend relies on.
func checkForm(t *testing.T, name string, d *automaton.DFA) {
	t.Helper()
	if len(d.States[0].Edges) != 0 || len(d.Sets[0]) != 0 || d.States[0].Accept != 0 {
		t.Fatalf("%s: state 0 is not dead, or set 0 not empty", name)
	}
	for i, s := range d.States {
		last := 0
		for _, e := range s.Edges {
			if int(e.Lo) <= last || e.Hi < e.Lo || e.To == 0 || int(e.To) >= len(d.States) {
				t.Fatalf("%s: state %d has a bad edge %+v", name, i, e)
			}
			last = int(e.Hi)
		}
		if int(s.Accept) >= len(d.Sets) {
			t.Fatalf("%s: state %d accepts set %d of %d", name, i, s.Accept, len(d.Sets))
		}
	}
	for i, set := range d.Sets {
		if !slices.IsSorted(set) || i > 0 && len(set) == 0 {
			t.Fatalf("%s: set %d is %v", name, i, set)
		}
	}
}

func describe(matchers []automaton.Matcher) string {
	var b strings.Builder
	for _, m := range matchers {
		fmt.Fprintf(&b, "%+v\n", m)
	}
	return b.String()
}

// TestComplexity shows that patterns which explode together are excluded by name and everything else works.
func TestComplexity(t *testing.T) {
	t.Parallel()
	matchers := []automaton.Matcher{{Index: 0, Kind: automaton.Exact, Text: "/a/b"}, {Index: 1, Kind: automaton.Directory, Text: "/b/", Recursive: true}}
	// Which of these have been seen so far is a set: 2^26 states.
	for c := 'a'; c <= 'z'; c++ {
		matchers = append(matchers, automaton.Matcher{Index: len(matchers), Kind: automaton.Pattern, Text: fmt.Sprintf("/**%cx**%cy", c, c)})
	}
	// And this one explodes alone.
	matchers = append(matchers, automaton.Matcher{Index: len(matchers), Kind: automaton.Pattern, Text: "/**a????????????????????"})
	dfas, excluded := automaton.Compile(matchers, automaton.Options{})
	if len(dfas) != 3 {
		t.Errorf("%d automata, want one for the literals and two for patterns", len(dfas))
	}
	if len(excluded) == 0 || len(excluded) >= 26 {
		t.Errorf("%d of 27 patterns excluded", len(excluded))
	}
	if last := excluded[len(excluded)-1]; last.Index != len(matchers)-1 || !strings.Contains(last.Reason, "alone") {
		t.Errorf("last excluded: %+v", last)
	}
	total := 0
	for _, d := range dfas {
		total += len(d.States)
	}
	t.Logf("%d states, %d excluded", total, len(excluded))
	found := false
	for _, d := range dfas {
		found = found || slices.Equal(d.Match("/b/c/d"), []int{1})
	}
	if !found {
		t.Error("the directory does not match")
	}
}

// TestHostilePatterns: however many patterns explode, compiling ends soon, and the harmless ones stay.
func TestHostilePatterns(t *testing.T) {
	t.Parallel()
	matchers := []automaton.Matcher{{Index: 0, Kind: automaton.Pattern, Text: "/etc/*.conf"}}
	for i := range 300 {
		matchers = append(matchers, automaton.Matcher{
			Index: i + 1, Kind: automaton.Pattern, Text: fmt.Sprintf("/**%c%c????????????????????", 'a'+i%26, 'a'+i/26),
		})
	}
	dfas, excluded := automaton.Compile(matchers, automaton.Options{})
	if len(dfas) != 1 || len(excluded) != 300 {
		t.Fatalf("%d automata, %d excluded", len(dfas), len(excluded))
	}
	if !slices.Equal(dfas[0].Match("/etc/x.conf"), []int{0}) {
		t.Error("the harmless pattern does not match")
	}
}

// TestDirectoriesTimesNames shows that a product is avoided by an automaton for each factor.
func TestDirectoriesTimesNames(t *testing.T) {
	t.Parallel()
	var matchers []automaton.Matcher
	for i := range 2000 {
		matchers = append(matchers,
			automaton.Matcher{Index: 2 * i, Kind: automaton.Directory, Text: fmt.Sprintf("/srv/d%d/", i), Recursive: true},
			automaton.Matcher{Index: 2*i + 1, Kind: automaton.ExecName, Text: fmt.Sprintf("tool%d", i)})
	}
	dfas, excluded := automaton.Compile(matchers, automaton.Options{})
	if len(dfas) != 2 || len(excluded) != 0 {
		t.Fatalf("%d automata, %d excluded", len(dfas), len(excluded))
	}
	if got := append(slices.Clone(dfas[0].Match("/srv/d7/x/tool9")), dfas[1].Match("/srv/d7/x/tool9")...); !slices.Equal(got, []int{14, 19}) {
		t.Errorf("got %v", got)
	}
}
