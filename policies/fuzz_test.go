// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// FuzzParseDocument: whatever the bytes, the parser answers policies that keep its promises or problems
// that point into the file.
func FuzzParseDocument(f *testing.F) {
	for _, r := range scenarioReleases(f) {
		if len(r.text) < 1<<16 {
			f.Add([]byte(r.text))
		}
	}
	for _, text := range shapes(f) {
		f.Add([]byte(text))
	}
	f.Add([]byte("a: &a [*a]\n---\n? {b: c}\n: !!x |\n  y\n...\n%YAML 1.1\n---\n"))
	f.Add([]byte("\uFEFF--- \r\n#\xff\n\t-\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseDocument("f", data)
		again, errAgain := ParseDocument("f", data)
		if !reflect.DeepEqual(list, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatal("two readings differ")
		}
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("not Problems: %v", err)
		}
		for _, p := range problems {
			inside(t, data, p.Position)
		}
		hinted(t, problems)
		for _, p := range list {
			keepsPromises(t, data, p)
		}
		set := NewSet(list)
		hinted(t, Warnings(set))
		Select(set, Subject{Host: true, Labels: map[string]string{LabelHostname: "h"}})
		Select(set, Subject{Namespace: UnorchestratedNamespace, ContainerName: "c", Labels: map[string]string{"app": "probe"}})
	})
}

// inside checks that a position is in the file.
func inside(t *testing.T, data []byte, p Position) {
	t.Helper()
	lines := bytes.Count(data, []byte("\n")) + 1
	if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Column > len(data)+1 {
		t.Fatalf("%v is outside a file of %d lines", p, lines)
	}
}

// keepsPromises checks what every accepted policy must be.
func keepsPromises(t *testing.T, data []byte, p *Policy) {
	t.Helper()
	inside(t, data, p.Position)
	if checkName(p.Name) != nil {
		t.Fatalf("name %q", p.Name)
	}
	for i, r := range p.Rules {
		inside(t, data, r.Position)
		bounded := p.Kind == KindNetwork || r.Severity >= 0 && r.Severity <= 10
		if r.Index != i || r.Class == "" || r.Object.Kind == "" || !bounded || checkAction(string(r.Action)) != nil {
			t.Fatalf("rule %d: %+v", i, r)
		}
	}
}

// expression writes a pattern's nodes as a regular expression: another way to the same answer.
func expression(nodes []PatternNode) string {
	var b strings.Builder
	for _, n := range nodes {
		switch n.Op {
		case PatternLiteral:
			for _, c := range []byte(n.Literal) {
				fmt.Fprintf(&b, `\x{%02x}`, c)
			}
		case PatternSet:
			b.WriteString("[")
			for c := range 256 {
				if n.Set.Has(byte(c)) {
					fmt.Fprintf(&b, `\x{%02x}`, c)
				}
			}
			b.WriteString("]")
		case PatternStar:
			b.WriteString(`[^/]*`)
		case PatternDoubleStar:
			b.WriteString(`[\x00-\x{ff}]*`)
		case PatternAlternatives:
			for i, a := range n.Alternatives {
				b.WriteString(map[bool]string{true: "(?:", false: "|"}[i == 0] + expression(a))
			}
			b.WriteString(")")
		}
	}
	return b.String()
}

// wide makes each byte a character, so that a regular expression sees bytes.
func wide(text string) string {
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = rune(text[i])
	}
	return string(runes)
}

// FuzzPattern: a pattern is refused, or matches exactly what its regular expression matches, and never a
// path against the rules of the slash.
func FuzzPattern(f *testing.F) {
	for _, r := range scenarioReleases(f) {
		for _, m := range regexp.MustCompile(`pattern: '?([^}'\n]+)`).FindAllStringSubmatch(r.text, -1) {
			f.Add(m[1], "/opt/t/dir/f1")
		}
	}
	for _, p := range []string{"/{a,b{c,}}/**", "/a/**/b", `/\[a]`, "/[^a-c]?*", "{/a,/b/}**", "/**{,/x}", "/[a-]"} {
		f.Add(p, "/a/b/c")
	}
	f.Fuzz(func(t *testing.T, source, path string) {
		p, err := ParsePattern(source)
		if err != nil {
			var e *PatternError
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(source) || e.Advice == "" {
				t.Fatalf("%q: %v, hint %q", source, err, e.Advice)
			}
			return
		}
		if len(path) <= 64 && len(source) <= 256 && strings.IndexByte(path, 0) < 0 {
			agrees(t, p, path)
		}
	})
}

// agrees holds Match against the regular expression and the literal prefix.
func agrees(t *testing.T, p Pattern, path string) {
	t.Helper()
	re, err := regexp.Compile(`(?s)^(?:` + expression(p.Nodes) + `)$`)
	if err != nil {
		return // too large for the regexp package
	}
	if p.Match(path) != re.MatchString(wide(path)) {
		t.Fatalf("%q on %q: %v, the expression says otherwise", p.Source, path, p.Match(path))
	}
	if p.Match(path) && !strings.HasPrefix(path, p.LiteralPrefix()) {
		t.Fatalf("%q matches %q without its prefix %q", p.Source, path, p.LiteralPrefix())
	}
}
