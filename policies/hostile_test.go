// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// hostileDocuments are as large as a document may be and made to cost much more than their size.
func hostileDocuments() map[string]string {
	const size = MaxDocument - 1024
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	var stairs strings.Builder
	for i := 0; stairs.Len() < size-5000; i++ {
		stairs.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return map[string]string{
		"comments": fill("# x\n"), "open lists": fill("["), "open maps": fill("{a: "), "dashes": fill("- "),
		"questions": fill("? "), "stairs": stairs.String(), "one key": fill("k: 1\n"), "flow keys": "{" + fill("a: b, ") + "}",
		"anchors": fill("- &a x\n"), "aliases": "- &a x\n" + fill("- *a\n"), "bomb": bomb.String(), "one word": fill("a"),
		"tabs": fill("\t"), "colons": fill(":"), "tags": fill("!"), "late comments": fill("- a # x\n\n# y\n"),
		"markers": fill("---\n"), "marked words": fill("--- a\n"), "ends": fill("a\n...\n"), "blank": fill("\n"),
		"inner comments": fill("a:\n  # x\n  # y\n\n"), "pairs": fill("[[],"), "directives": fill("%a\n"),
		"late fault": fill("a: [b]\n") + "}\n", "late list": fill("- [a]\n") + " x: ]\n", "fields": podHeader + fill("  x: 1\n"),
		"rules":  podHeader + "  file:\n    matchPaths:\n" + fill("    - {}\n"),
		"words":  podHeader + "  syscalls:\n    matchSyscalls:\n    - syscall:\n" + fill("      - "+strings.Repeat("a", 60)+"\n"),
		"braces": podHeader + "  file:\n    matchPatterns:\n    - pattern: \"/" + fill("{a,") + "\"\n",
		"regexp": strings.Replace(podHeader, "web", UnorchestratedNamespace, 1) + "  selector:\n    matchLabels: {kubearmor.io/container.name: \"" + fill("(a{999}){1}") + "\"}\n",
	}
}

// TestHostileDocumentsAreCheap gives each a deadline that only something worse than linear misses.
func TestHostileDocumentsAreCheap(t *testing.T) {
	t.Parallel()
	const deadline = 60 * time.Second // measured: below 1 s each, and 4 s on a machine that is busy otherwise
	for name, text := range hostileDocuments() {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		done := make(chan time.Duration, 1)
		go func() {
			start := time.Now()
			_, _ = ParseDocument("f.yaml", []byte(text))
			done <- time.Since(start)
		}()
		select {
		case took := <-done:
			t.Logf("%-15s %8v", name, took.Round(time.Millisecond))
		case <-ctx.Done():
			t.Errorf("%s: a document of %d bytes took more than %v", name, len(text), deadline)
		}
		cancel()
	}
}
