// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
)

// TestRowsEqualDecide is the property on which every kernel rests: automata, marks and rows together decide
// as the reference does.
func TestRowsEqualDecide(t *testing.T) {
	t.Parallel()
	seeds := uint64(600)
	if testing.Short() {
		seeds = 60
	}
	verdicts := map[[2]bool]int{}
	for seed := range seeds {
		g := enforcetest.NewGenerator(seed)
		rs := g.Ruleset(1 + int(seed%23))
		engine, err := enforcetest.NewEngine(rs)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			op := g.Operation(rs)
			want, got := rs.Decide(op), engine.Decide(op)
			if len(want.Audits)+len(got.Audits) == 0 {
				want.Audits, got.Audits = nil, nil
			}
			if !reflect.DeepEqual(want, got) {
				ruleset, _ := json.MarshalIndent(rs, "", " ")
				t.Fatalf("seed %d: %+v\n rows:   %+v\n decide: %+v\n%s", seed, op, got, want, ruleset)
			}
			verdicts[[2]bool{want.Rule >= 0, want.Verdict == enforce.Deny}]++
		}
	}
	for _, kind := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		if verdicts[kind] < int(seeds) {
			t.Errorf("only %d decisions by rule: %t, denied: %t; the generator is lopsided", verdicts[kind], kind[0], kind[1])
		}
	}
	t.Logf("decisions {by a rule, denied}: %v", verdicts)
}

func FuzzRowsEqualDecide(f *testing.F) {
	f.Add(uint64(1), 5)
	f.Add(uint64(1<<40), 40)
	f.Fuzz(func(t *testing.T, seed uint64, size int) {
		g := enforcetest.NewGenerator(seed)
		rs := g.Ruleset(1 + (size&0x7fffffff)%60)
		engine, err := enforcetest.NewEngine(rs)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			op := g.Operation(rs)
			want, got := rs.Decide(op), engine.Decide(op)
			if len(want.Audits)+len(got.Audits) == 0 {
				want.Audits, got.Audits = nil, nil
			}
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("%+v\n rows:   %+v\n decide: %+v", op, got, want)
			}
		}
	})
}
