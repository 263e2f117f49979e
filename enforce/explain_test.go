// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	directory := policies.ObjectDirectory
	rs := rules(with(container1, posture(enforce.PostureBlock)),
		block(file, "/d/f", of("exact")),
		allow(file, "/d/", as(directory), from("/bin/a"), of("source")),
		block(file, "/d/", as(directory), recursive, readOnly, of("tree")),
		audit("/d/f", of("watch")))
	for _, tc := range []struct {
		name   string
		op     enforce.Operation
		denied bool
		rules  int
		why    []string
	}{
		{"source beats exact", op(file, "/d/f", "/bin/a"), false, 4, []string{"permitted", "Allow rule", "source", "fromSource"}},
		{"exact", op(file, "/d/f", "/bin/b"), true, 4, []string{"denied", "Block rule", "exact path"}},
		{"modifier", op(file, "/d/g", "/bin/b", read), true, 2, []string{"denied", "no rule fires", "posture is block"}},
		{"nothing", op(process, "/d/g", "/bin/b"), false, 0, []string{"permitted", "no allow-list of class process"}},
		{"no path", op(file, "", "", noPath), true, 0, []string{"denied", "cannot be built"}},
	} {
		e := rs.Explain(tc.op)
		if e.Denied != tc.denied || len(e.Rules) != tc.rules {
			t.Errorf("%s: %+v", tc.name, e)
		}
		for _, word := range tc.why {
			if !strings.Contains(e.Why, word) {
				t.Errorf("%s: %q does not say %q", tc.name, e.Why, word)
			}
		}
	}
	e := rs.Explain(op(file, "/d/g", "/bin/b", read))
	if e.Rules[0].Silent != "source is none of /bin/a" || !strings.Contains(e.Rules[1].Silent, "readOnly") {
		t.Errorf("%+v", e.Rules)
	}
	if e := rs.Hold("x").Explain(op(file, "/d/f", "")); e.Denied || !strings.Contains(e.Why, "held") {
		t.Errorf("%+v", e)
	}
}

// TestExplainAgrees: exactly the deciding rule is marked, and it fires; every audit is among the rules.
func TestExplainAgrees(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		g := enforcetest.NewGenerator(seed)
		rs := g.Ruleset(15)
		for range 50 {
			o := g.Operation(rs)
			e := rs.Explain(o)
			firing := map[int]bool{}
			decided := -1
			for _, r := range e.Rules {
				firing[r.Number] = r.Fires
				if r.Decides {
					decided = r.Number
				}
			}
			if decided != e.Decision.Rule || decided >= 0 && !firing[decided] || e.Why == "" {
				t.Fatalf("seed %d: %+v", seed, e)
			}
			for _, a := range e.Decision.Audits {
				if !firing[a] {
					t.Fatalf("seed %d: audit %d does not fire: %+v", seed, a, e)
				}
			}
		}
	}
}
