// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/muster-fleet/muster/policies"
)

// TestAbout: whatever the rules, what is left of them for an object decides about it as all of them do.
func TestAbout(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 7))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	paths := []string{"/bin/a", "/bin/b", "/lib/c", "/bin/sub/d"}
	objects := []policies.Object{
		{Kind: policies.ObjectPath, Value: "/bin/a"},
		{Kind: policies.ObjectPath, Value: "/bin/b"},
		{Kind: policies.ObjectPattern, Value: "/bin/*"},
		{Kind: policies.ObjectDirectory, Value: "/bin/", Recursive: true},
		{Kind: policies.ObjectDirectory, Value: "/bin/"},
		{Kind: policies.ObjectDirectory, Value: "/lib/"},
	}
	verdicts := map[string]int{}
	for range 3000 {
		rs := &Ruleset{Subject: Host, Mode: ModeEnforce, Postures: Postures{File: Posture(pick("audit", "block"))}}
		for n := range random.IntN(6) {
			o := objects[random.IntN(len(objects))]
			r := Rule{Policy: policies.ID{Name: fmt.Sprint(n)}, Objects: []string{o.Value}, DryRun: random.IntN(5) == 0}
			r.Rule = policies.Rule{Class: policies.Class(pick("file", "process")), Action: policies.Action(pick("Allow", "Block", "Audit")), Object: o, OwnerOnly: random.IntN(3) == 0}
			if random.IntN(2) == 0 {
				r.Sources = []string{pick("/s/1", "/s/2")}
			}
			rs.Rules = append(rs.Rules, r)
		}
		for _, path := range paths {
			for _, class := range []policies.Class{policies.ClassFile, policies.ClassProcess} {
				few := rs.about(&Operation{Class: class, Path: path})
				for _, source := range []string{"/s/1", "/s/2", "/s/3"} {
					op := Operation{Class: class, Path: path, Read: true, Owner: random.IntN(2) == 0, Source: ProcessSource{Executable: source}}
					want, got := rs.Decide(op), few.Decide(op)
					if got.Verdict != want.Verdict || got.Posture != want.Posture || got.Rule < 0 != (want.Rule < 0) ||
						got.Rule >= 0 && few.Rules[got.Rule].Policy != rs.Rules[want.Rule].Policy {
						t.Fatalf("%+v\nall: %+v\nfew: %+v\n%+v", op, want, got, rs.Rules)
					}
					verdicts[fmt.Sprint(want.Verdict, want.Posture)]++
				}
			}
		}
	}
	if len(verdicts) < 4 {
		t.Errorf("only %v came up", verdicts)
	}
}
