// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"math/rand/v2"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func healthy() Facts {
	return Facts{
		Released: true,
		Declared: []Declared{{Subject: enforce.Host, Digest: "sha256:aa", Rules: 3, Mode: enforce.ModeEnforce}},
		Observed: &enforce.State{Subjects: map[enforce.SubjectID]enforce.SubjectState{
			enforce.Host: {Digest: "sha256:aa", Intact: true, Mode: enforce.ModeEnforce},
		}},
	}
}

func TestConclude(t *testing.T) {
	t.Parallel()
	host := func(s enforce.SubjectState) *enforce.State {
		return &enforce.State{Subjects: map[enforce.SubjectID]enforce.SubjectState{enforce.Host: s}}
	}
	for name, c := range map[string]struct {
		mode   enforce.Mode
		change func(*Facts)
		want   HostState
	}{
		"enforced":         {enforce.ModeEnforce, func(*Facts) {}, StateEnforced},
		"nothing declared": {enforce.ModeEnforce, func(f *Facts) { f.Declared, f.Observed = nil, &enforce.State{} }, StateEnforced},
		"zero facts":       {enforce.ModeEnforce, func(f *Facts) { *f = Facts{} }, StateUnknown},
		"kernel not read":  {enforce.ModeEnforce, func(f *Facts) { f.Observed = nil }, StateUnknown},
		"no release":       {enforce.ModeEnforce, func(f *Facts) { f.Released = false }, StateUnknown},
		"off":              {enforce.ModeOff, func(*Facts) {}, StateUnknown},
		"mode missing":     {"", func(*Facts) {}, StateUnknown},
		"audit agent": {enforce.ModeAudit, func(f *Facts) {
			f.Declared[0].Mode, f.Observed = enforce.ModeAudit, host(enforce.SubjectState{Digest: "sha256:aa", Intact: true, Mode: enforce.ModeAudit})
		}, StateAudited},
		"audit release": {enforce.ModeEnforce, func(f *Facts) {
			f.Declared[0].Mode, f.Observed = enforce.ModeAudit, host(enforce.SubjectState{Digest: "sha256:aa", Intact: true, Mode: enforce.ModeAudit})
		}, StateAudited},
		"gap":                 {enforce.ModeEnforce, func(f *Facts) { f.Gaps = []enforce.Gap{{Reason: "class"}} }, StatePartial},
		"held":                {enforce.ModeEnforce, func(f *Facts) { f.Declared[0].Held = "sshd" }, StateHeld},
		"stalled":             {enforce.ModeEnforce, func(f *Facts) { f.Stalled, f.Observed = "no BPF LSM", nil }, StateStalled},
		"drift":               {enforce.ModeEnforce, func(f *Facts) { f.Drift = []enforce.Drift{{Kind: enforce.DriftDetached}} }, StateDrifted},
		"unlabelled":          {enforce.ModeEnforce, func(f *Facts) { f.Drift = []enforce.Drift{{Kind: enforce.DriftUnlabelled}} }, StateDrifted},
		"foreign":             {enforce.ModeEnforce, func(f *Facts) { f.Drift = []enforce.Drift{{Kind: enforce.DriftForeign}} }, StateEnforced},
		"a policy's own mode": {enforce.ModeEnforce, func(f *Facts) { f.Drift = []enforce.Drift{{Kind: enforce.DriftMode, Policy: &policies.ID{Name: "p"}}} }, StateEnforced},
		"other digest": {enforce.ModeEnforce, func(f *Facts) {
			f.Observed = host(enforce.SubjectState{Digest: "sha256:bb", Intact: true, Mode: enforce.ModeEnforce})
		}, StateDrifted},
		"altered": {enforce.ModeEnforce, func(f *Facts) {
			f.Observed = host(enforce.SubjectState{Digest: "sha256:aa", Mode: enforce.ModeEnforce})
		}, StateDrifted},
		"audit in the kernel": {enforce.ModeEnforce, func(f *Facts) {
			f.Observed = host(enforce.SubjectState{Digest: "sha256:aa", Intact: true, Mode: enforce.ModeAudit})
		}, StateDrifted},
		"missing":              {enforce.ModeEnforce, func(f *Facts) { f.Observed = &enforce.State{} }, StateDrifted},
		"component detached":   {enforce.ModeEnforce, func(f *Facts) { f.Observed.Components = []enforce.Component{{Condition: enforce.DriftDetached}} }, StateDrifted},
		"drift beats gap":      {enforce.ModeEnforce, func(f *Facts) { f.Gaps, f.Drift = []enforce.Gap{{}}, []enforce.Drift{{Kind: enforce.DriftExtra}} }, StateDrifted},
		"gap is not an excuse": {enforce.ModeAudit, func(f *Facts) { f.Gaps = []enforce.Gap{{}} }, StatePartial},
	} {
		f := healthy()
		c.change(&f)
		r := Conclude(Report{Mode: c.mode}, f)
		if r.State != c.want {
			t.Errorf("%s: %s, want %s", name, r.State, c.want)
		}
		if len(r.Subjects) != 1 && f.Observed != nil && len(f.Declared) > 0 {
			t.Errorf("%s: subjects %v", name, r.Subjects)
		}
	}
}

// Whatever the facts, Enforced means that every declared digest was read back intact from the kernel.
func TestEnforcedIsNeverGuessed(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	digests, modes := []string{"", "a", "b"}, []enforce.Mode{enforce.ModeEnforce, enforce.ModeEnforce, enforce.ModeAudit, ""}
	enforced := 0
	for range 20000 {
		f := Facts{Released: rng.IntN(8) > 0}
		if rng.IntN(8) > 0 {
			f.Observed = &enforce.State{Subjects: map[enforce.SubjectID]enforce.SubjectState{}}
		}
		for _, id := range []enforce.SubjectID{"host", "c1"} {
			if rng.IntN(4) > 0 {
				f.Declared = append(f.Declared, Declared{Subject: id, Digest: digests[rng.IntN(3)], Mode: modes[rng.IntN(4)]})
			}
			if f.Observed != nil && rng.IntN(4) > 0 {
				f.Observed.Subjects[id] = enforce.SubjectState{Digest: digests[rng.IntN(3)], Intact: rng.IntN(4) > 0, Mode: modes[rng.IntN(4)]}
			}
		}
		r := Conclude(Report{Mode: modes[rng.IntN(4)]}, f)
		if r.State != StateEnforced {
			continue
		}
		enforced++
		for _, d := range f.Declared {
			s, ok := f.Observed.Subjects[d.Subject]
			if !ok || s.Digest != d.Digest || !s.Intact || s.Mode != enforce.ModeEnforce {
				t.Fatalf("Enforced, but declared %+v and observed %+v", d, s)
			}
		}
	}
	if enforced == 0 {
		t.Error("nothing was enforced: the test tests nothing")
	}
}
