// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

// TestStateTornAtEveryByte cuts every file of the state directory at every byte and starts an agent on it:
// the kernel holds the last good ruleset, an older release is still refused, and nothing stops the start.
func TestStateTornAtEveryByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := blocking("one", "/etc/a"), blocking("two", "/etc/a", "/etc/b")
	w.publish(first, []string{"alice"}, 1, false)
	w.start()
	w.sync()
	old := w.git("-C", w.repo(), "rev-parse", "muster/stable")
	w.publish(second, []string{"alice"}, 2, false)
	w.sync()
	w.halt()
	if w.kernel.hostRules() != 2 {
		t.Fatal(w.kernel.hostRules())
	}
	w.git("-C", w.repo(), "update-ref", "refs/heads/muster/stable", old)
	whole := readTree(t, w.cfg.StateDir)
	starts := 0
	for _, name := range sortedNames(whole) {
		step := 1
		if len(whole[name]) > 1200 {
			step = len(whole[name]) / 97 // the cache's payload: the header is what tells, and is cut everywhere
		}
		for n := 0; n < len(whole[name]); n++ {
			if n > 120 && n%step != 0 {
				continue
			}
			starts++
			writeTree(t, w.cfg.StateDir, whole)
			w.must(os.Truncate(filepath.Join(w.cfg.StateDir, name), int64(n)))
			w.checkTorn(name, n)
		}
	}
	t.Logf("%d files, %d starts", len(whole), starts)
}

// checkTorn starts an agent and holds it to what must be true whatever was torn.
func (w *world) checkTorn(name string, n int) {
	w.t.Helper()
	w.start()
	defer w.halt()
	status := w.status()
	if got := w.kernel.hostRules(); got != 2 {
		w.t.Fatalf("%s cut at %d: %d rules in the kernel", name, n, got)
	}
	if strings.HasPrefix(name, "seen") && !strings.HasSuffix(name, ".old") &&
		!slices.ContainsFunc(status.Report.Conditions, func(c fleet.Condition) bool { return c.Type == "StateLost" }) {
		w.t.Fatalf("%s cut at %d: not reported: %+v", name, n, status.Report.Conditions)
	}
	result := w.sync()
	if result.Outcome != "refused" || result.Problem.Name != "rollback" || w.kernel.hostRules() != 2 {
		w.t.Fatalf("%s cut at %d: an older release: %s %+v, %d rules", name, n, result.Outcome, result.Problem, w.kernel.hostRules())
	}
}

func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, pattern := range []string{"*", "cache/*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				continue // a directory
			}
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			out[rel] = content
		}
	}
	return out
}

func writeTree(t *testing.T, dir string, tree map[string][]byte) {
	t.Helper()
	for name, content := range tree {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func sortedNames(tree map[string][]byte) []string {
	out := []string{}
	for name := range tree {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
