// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strings"
)

// suggest names the known field nearest to an unknown one, or all of them.
func suggest(name string, fields []field) string {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.name
	}
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known here: " + strings.Join(known, ", ")
}

// nearest returns the known word that a slip of the pen turns into name, or "".
func nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", max(2, len(name)/3)+1
	for _, word := range known {
		if len(word)-len(name) >= least || len(name)-len(word) >= least {
			continue // cannot be nearer, and most words are told apart by this alone
		}
		d := distance(strings.ToLower(name), strings.ToLower(word))
		if d < least && d < len(word) {
			best, least = word, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// oneOf makes the flaw of a word outside a closed list.
func oneOf(what, word string, known []string) *flaw {
	if slices.Contains(known, word) {
		return nil
	}
	reason := fmt.Sprintf("%q is no %s", brief(word), what)
	if near := nearest(word, known); near != "" {
		return &flaw{reason, fmt.Sprintf("did you mean %s?", near)}
	}
	if len(known) > 60 {
		return &flaw{reason, "muster schema KIND lists every known " + what}
	}
	return &flaw{reason, "known: " + strings.Join(known, ", ")}
}
