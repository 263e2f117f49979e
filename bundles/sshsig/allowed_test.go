// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"strings"
	"testing"
)

func TestMatchList(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns, s string
		want        bool
	}{
		{"*", "a", true},
		{"*", "", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"*.example.org", "web-1.example.org", true},
		{"*.example.org", "example.org", false},
		{"*,!db*", "db1", false},
		{"!db*,*", "db1", false},
		{"!db*", "web", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{strings.Repeat("*a", 30), strings.Repeat("a", 63) + "b", false},
	} {
		if got := matchList(strings.Split(c.patterns, ","), c.s); got != c.want {
			t.Errorf("%s against %s: %v", c.patterns, c.s, got)
		}
	}
}
