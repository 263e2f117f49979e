// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import "strings"

// printable makes a text from elsewhere safe for a terminal, a log line and a Markdown code span: printable
// ASCII without back-ticks, pipes and backslashes; everything else becomes "?", and at most n bytes of it.
func printable(s string, n int) string {
	s = clip(s, n)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '`' || r == '|' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}
