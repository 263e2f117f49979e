// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// TestPresets: Block denies, Audit reports, and what has nothing to enforce is said.
func TestPresets(t *testing.T) {
	t.Parallel()
	preset := func(action policies.Action, name string) policies.Rule {
		return pathRule(action, policies.ClassPreset, policies.ObjectPreset, name)
	}
	rs, gaps := enforce.Compile(input(policy("p", nil,
		preset(policies.ActionBlock, "protectEnv"), preset(policies.ActionAudit, "protectProc"),
		preset(policies.ActionAllow, "filelessExec"), preset(policies.ActionBlock, "exec"))))
	var got []string
	for _, g := range gaps {
		got = append(got, fmt.Sprintf("%d %s", g.Rule, g.Reason))
	}
	if !slices.Equal(got, []string{"2 class", "3 class"}) {
		t.Errorf("gaps %v", gaps)
	}
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"protectProc", "protectEnv"}, "deny 1"}, {[]string{"protectProc"}, "permit 1"}, {[]string{"filelessExec"}, "permit 0"},
	} {
		d := rs.Decide(enforce.Operation{Class: policies.ClassPreset, Names: c.names})
		if got := fmt.Sprint(d.Verdict, len(d.Audits)); got != c.want {
			t.Errorf("%v: %s", c.names, got)
		}
	}
}
