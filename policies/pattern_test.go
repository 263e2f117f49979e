// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"strings"
	"testing"
)

func TestPatternMatch(t *testing.T) {
	t.Parallel()
	tests := []struct{ pattern, yes, no string }{
		{"/opt/t/bin/tool*", "/opt/t/bin/tool /opt/t/bin/tool2 /opt/t/bin/tool.sh", "/opt/t/bin/dyntool /opt/t/bin/tool/x"},
		{"/opt/t/*/f?", "/opt/t/dir/f1", "/opt/t/dir/sub/f3 /opt/t/f1 /opt/t/dir/f /opt/t//f1"},
		{"/opt/t/d**/f3", "/opt/t/dir/sub/f3 /opt/t/d/f3", "/opt/t/dir/f1 /opt/t/dir/f33"},
		{"/opt/t/u*/own", "/opt/t/user1/own", "/opt/t/user1/own.txt"},
		{"/a/**", "/a/b /a/b/c /a/b/", "/a /a/ /ab"},
		{"/a/*", "/a/b", "/a /a/ /a/b/c"},
		{"/a/**/b", "/a/x/b /a/x/y/b", "/a/b"},
		{"/**", "/a /a/b", "/"},
		{"**", "/ /a", ""},
		{"**/shadow", "/etc/shadow /shadow", "/etc/xshadow"},
		{"/a[b-d]x", "/abx /adx", "/aax /a/x"},
		{"/a[^b-d]x", "/aax /aZx", "/abx /a/x"},
		{"/a[-+]", "/a- /a+", "/a,"},
		{"/a[+-]", "/a- /a+", "/a,"},
		{"/a[+-9]b", "/a5b /a.b", "/a/b"},
		{`/a[\]]`, "/a]", "/a["},
		{"/{bin,usr/{s,}bin}/x", "/bin/x /usr/bin/x /usr/sbin/x", "/sbin/x /usr/x"},
		{"/a/{**,b}", "/a/b /a/x/y", "/a/"},
		{"{/a/,/b/}**", "/a/x /b/y/z", "/a/ /b/"},
		{`/a\*b`, "/a*b", "/axb"},
		{`/a\{b,c\}`, "/a{b,c}", "/ab"},
		{"/a,b", "/a,b", "/a"},
		{"/caf?*", "/café", "/caf"},
		{"/a***b", "/ab /a/b", "/a"},
	}
	for _, tt := range tests {
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		for path := range strings.FieldsSeq(tt.yes) {
			if !p.Match(path) {
				t.Errorf("%s does not match %s", tt.pattern, path)
			}
		}
		for path := range strings.FieldsSeq(tt.no) {
			if p.Match(path) {
				t.Errorf("%s matches %s", tt.pattern, path)
			}
		}
	}
}

func TestPatternRefused(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"", "/a[", "/a[]", "/a[b", "/a]", "/a{b", "/a{b}", "/a}", `/a\`, "/a[z-b]", "/a[/]", "/a[!b]", "/a[é]",
		"/a\x00", "a/b", "*.txt", "?x", "[a]b", "{a,b}/c", `/a[\`, "/" + strings.Repeat("a", MaxPath),
		"/" + strings.Repeat("{a,", 9) + strings.Repeat("}", 9),
	} {
		_, err := ParsePattern(pattern)
		var e *PatternError
		if !errors.Is(err, ErrPattern) || !errors.As(err, &e) || e.Hint() == "" {
			t.Errorf("%.40q: %v, and a hint", pattern, err)
		}
	}
}

func TestLiteralPrefix(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"/opt/t/dir/f?":     "/opt/t/dir/f",
		"/opt/t/dir/f[2-9]": "/opt/t/dir/f",
		"/a{b,c}":           "/a",
		`/a\*b*`:            "/a*b",
		"**":                "",
		"/plain":            "/plain",
		"/a/**":             "/a/",
	} {
		p, err := ParsePattern(pattern)
		if err != nil || p.LiteralPrefix() != want {
			t.Errorf("%s: %q, %v; want %q", pattern, p.LiteralPrefix(), err, want)
		}
	}
}
