// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	want := rules(nil, block(file, "/f"))
	good := enforce.SubjectState{Digest: want.Digest(), Intact: true, Mode: enforce.ModeEnforce}
	state := func(change func(*enforce.SubjectState)) enforce.State {
		s := good
		change(&s)
		return enforce.State{Backend: "bpflsm", Subjects: map[enforce.SubjectID]enforce.SubjectState{enforce.Host: s}}
	}
	keep := func(*enforce.SubjectState) {}
	id := policies.ID{Kind: policies.KindHost, Name: "p"}
	held := want.Hold("sshd must run bash")
	for _, tc := range []struct {
		name  string
		in    enforce.DiffInput
		drift []string
	}{
		{"in order", enforce.DiffInput{Want: []*enforce.Ruleset{want}, Have: state(keep)}, nil},
		{"nothing wanted, nothing there", enforce.DiffInput{}, nil},
		{"an empty ruleset need not be there", enforce.DiffInput{Want: []*enforce.Ruleset{rules(nil)}}, nil},
		{"missing", enforce.DiffInput{Want: []*enforce.Ruleset{want}}, []string{"missing high host repair"}},
		{"another digest", enforce.DiffInput{Want: []*enforce.Ruleset{want}, Have: state(func(s *enforce.SubjectState) { s.Digest = "sha256:0" })}, []string{"altered high host repair"}},
		{"edited by hand", enforce.DiffInput{Want: []*enforce.Ruleset{want}, Have: state(func(s *enforce.SubjectState) { s.Intact = false })}, []string{"altered high host repair"}},
		{"weaker mode", enforce.DiffInput{Want: []*enforce.Ruleset{want}, Have: state(func(s *enforce.SubjectState) { s.Mode = enforce.ModeAudit })}, []string{"mode high host repair"}},
		{"no longer declared", enforce.DiffInput{Have: state(keep)}, []string{"extra medium host repair"}},
		{"held", enforce.DiffInput{Want: []*enforce.Ruleset{held}, Have: state(func(s *enforce.SubjectState) { s.Digest, s.Mode = held.Digest(), enforce.ModeAudit })}, []string{"held high host report"}},
		{"components", enforce.DiffInput{Have: enforce.State{Backend: "bpflsm", Components: []enforce.Component{
			{Kind: "link", Name: "file_open"},
			{Kind: "link", Name: "bprm", Condition: enforce.DriftDetached},
			{Kind: "program", Name: "bprm", Condition: enforce.DriftAltered, Detail: "tag differs"},
			{Kind: "pin", Name: "old", Condition: enforce.DriftExtra},
			{Kind: "map", Name: "rows", Condition: enforce.DriftMissing},
		}}}, []string{"altered high  repair", "detached high  repair", "missing high  repair", "extra medium  repair"}},
		{"others", enforce.DiffInput{Have: enforce.State{Foreign: []string{"link 7 on file_open"}, Unlabelled: 3}}, []string{"unlabelled medium  report", "foreign low  report"}},
		{"gaps", enforce.DiffInput{Gaps: []enforce.Gap{
			{Subject: enforce.Host, Policy: id, Rule: -1, Backend: "bpflsm", Reason: enforce.ReasonMode},
			{Subject: enforce.Host, Policy: id, Rule: 2, Backend: "bpflsm", Reason: enforce.FeaturePattern},
			{Subject: enforce.Host, Policy: id, Rule: 1, Backend: "bpflsm", Reason: enforce.FeaturePattern},
		}}, []string{"gap medium host report p/1", "gap medium host report p/2", "mode low host report p"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.in.Now = now
			drift := enforce.Diff(tc.in)
			if got := driftLines(drift); !slices.Equal(got, tc.drift) {
				t.Errorf("got %q, want %q", got, tc.drift)
			}
			for _, d := range drift {
				if d.Since != now {
					t.Errorf("since %v", d.Since)
				}
			}
			// What is still there keeps its since; what is new does not inherit one.
			tc.in.Before, tc.in.Now = drift, now.Add(time.Hour)
			for _, d := range enforce.Diff(tc.in) {
				if d.Since != now {
					t.Errorf("%s forgot since when: %v", d.Kind, d.Since)
				}
			}
		})
	}
}

func driftLines(drift []enforce.Drift) []string {
	var lines []string
	for _, d := range drift {
		line := fmt.Sprintf("%s %s %s ", d.Kind, d.Severity, d.Subject)
		if d.Repairable() {
			line += "repair"
		} else {
			line += "report"
		}
		if d.Policy != nil {
			line += " " + d.Policy.Name
		}
		if d.Rule != nil {
			line += fmt.Sprintf("/%d", *d.Rule)
		}
		lines = append(lines, line)
	}
	return lines
}
