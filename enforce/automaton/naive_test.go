// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package automaton_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// naive matches one matcher by reading its text: it shares nothing with the automaton, not even the parser
// of patterns.
func naive(m automaton.Matcher, path string) bool {
	switch m.Kind {
	case automaton.Exact:
		return path == m.Text
	case automaton.ExecName:
		return path[strings.LastIndex(path, "/")+1:] == m.Text
	case automaton.Directory:
		if path+"/" == m.Text || path == m.Text {
			return true
		}
		below, ok := strings.CutPrefix(path, m.Text)
		return ok && (m.Recursive || !strings.Contains(below, "/"))
	case automaton.Pattern:
		for _, p := range expand(m.Text) {
			if glob(p, path, false) {
				return true
			}
		}
	}
	return false
}

// expand writes {a,b} out into a list of patterns without braces.
func expand(p string) []string {
	open, inClass := -1, false
	for i := 0; i < len(p); i++ {
		switch {
		case p[i] == '\\':
			i++
		case p[i] == '[' && !inClass:
			inClass = true
		case p[i] == ']':
			inClass = false
		case p[i] == '{' && !inClass:
			open = i
		}
		if open >= 0 {
			break
		}
	}
	if open < 0 {
		return []string{p}
	}
	depth, from, inClass := 0, open+1, false
	var parts []string
	for i := open + 1; i < len(p); i++ {
		switch {
		case p[i] == '\\':
			i++
		case inClass:
			inClass = p[i] != ']'
		case p[i] == '[':
			inClass = true
		case p[i] == '{':
			depth++
		case p[i] == '}' && depth > 0:
			depth--
		case p[i] == ',' && depth == 0:
			parts, from = append(parts, p[from:i]), i+1
		case p[i] == '}':
			var out []string
			for _, part := range append(parts, p[from:i]) {
				// The mark keeps stars apart that only meet here: {*,a}* is not **.
				out = append(out, expand(p[:open]+mark+part+mark+p[i+1:])...)
			}
			return out
		}
	}
	panic("unclosed brace in " + p)
}

const mark = "\x00"

// glob matches a pattern without braces by trying. afterSlash says that what came before ended in a slash.
func glob(p, path string, afterSlash bool) bool {
	if p == "" {
		return path == ""
	}
	switch p[0] {
	case mark[0]:
		return glob(p[1:], path, afterSlash)
	case '*':
		stars := 1
		for stars < len(p) && p[stars] == '*' {
			stars++
		}
		rest := p[stars:]
		least := 0
		if next := strings.TrimLeft(rest, mark); afterSlash && (next == "" || next[0] == '/') {
			least = 1 // a star that is a whole component
		}
		for n := 0; n <= len(path); n++ {
			if n > 0 && stars == 1 && path[n-1] == '/' || n == 1 && least == 1 && path[0] == '/' {
				return false
			}
			if n >= least && glob(rest, path[n:], n == 0 && afterSlash || n > 0 && path[n-1] == '/') {
				return true
			}
		}
		return false
	case '[':
		end := strings.IndexByte(p, ']')
		return path != "" && path[0] != '/' && inClass(p[1:end], path[0]) && glob(p[end+1:], path[1:], false)
	case '?':
		return path != "" && path[0] != '/' && glob(p[1:], path[1:], false)
	case '\\':
		p = p[1:]
	}
	return path != "" && path[0] == p[0] && glob(p[1:], path[1:], p[0] == '/')
}

func inClass(class string, b byte) bool {
	negated := strings.HasPrefix(class, "^")
	class = strings.TrimPrefix(class, "^")
	found := false
	for i := 0; i < len(class); i++ {
		lo := class[i]
		hi := lo
		if i+2 < len(class) && class[i+1] == '-' {
			hi = class[i+2]
			i += 2
		}
		found = found || lo <= b && b <= hi
	}
	return found != negated
}

// validPattern admits what naive reads rightly: no escape inside a class.
func validPattern(p string) bool {
	if _, err := policies.ParsePattern(p); err != nil {
		return false
	}
	for i, open := 0, false; i < len(p); i++ {
		switch {
		case p[i] == '\\' && open, p[i] == '[' && open:
			return false
		case p[i] == '\\':
			i++
		case p[i] == '[':
			open = true
		case p[i] == ']':
			open = false
		}
	}
	return true
}

func cleanPath(path string) bool {
	return path == "/" || len(path) < 256 && strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") &&
		!strings.Contains(path, "//") && !strings.Contains(path, "\x00")
}

// A small alphabet makes the matchers meet.
func name(r *rand.Rand) string {
	b := make([]byte, 1+r.IntN(3))
	for i := range b {
		b[i] = "aab*"[r.IntN(3+r.IntN(2))]
	}
	return string(b)
}

func randomMatchers(r *rand.Rand, count int) []automaton.Matcher {
	matchers := make([]automaton.Matcher, count)
	for i := range matchers {
		m := automaton.Matcher{Index: i, Kind: automaton.Kind(1 + r.IntN(4)), Recursive: r.IntN(2) == 0}
		switch m.Kind {
		case automaton.Exact:
			m.Text = randomPath(r)
		case automaton.ExecName:
			m.Text = name(r)
		case automaton.Directory:
			m.Text = strings.TrimSuffix(randomPath(r), "/") + "/"
		case automaton.Pattern:
			for m.Text == "" || !validPattern(m.Text) {
				m.Text = randomPattern(r)
			}
		}
		matchers[i] = m
	}
	return matchers
}

func randomPath(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString("/" + name(r))
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

func randomPattern(r *rand.Rand) string {
	pieces := []string{"/", "/", "a", "b", "*", "**", "?", "[ab]", "[^a]", "{a,b}", "{,a/}b", "{*,ab}", `\*`, "/**/", "/*"}
	var b strings.Builder
	b.WriteString("/")
	for range 1 + r.IntN(6) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// randomPaths are paths of the same alphabet, half of them near one of the matchers.
func randomPaths(r *rand.Rand, matchers []automaton.Matcher, count int) []string {
	paths := []string{"/"}
	for len(paths) < count {
		path := randomPath(r)
		if m := matchers[r.IntN(len(matchers))]; r.IntN(2) == 0 && m.Kind != automaton.Pattern && m.Kind != automaton.ExecName {
			path = fmt.Sprintf("%s%s", m.Text, []string{"", "a", "/a", "a/b"}[r.IntN(4)])
			path = strings.ReplaceAll(path, "//", "/")
		}
		if cleanPath(path) {
			paths = append(paths, path)
		}
	}
	return paths
}
