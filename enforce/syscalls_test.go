// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func callRule(action policies.Action, path string, calls ...string) policies.Rule {
	return policies.Rule{
		Action: action, Class: policies.ClassSyscalls,
		Object: policies.Object{Kind: policies.ObjectSyscall, Value: path, Recursive: true, Syscalls: calls},
	}
}

// TestSyscalls: reported whatever the action says, on the paths and from the sources that the rule names.
func TestSyscalls(t *testing.T) {
	t.Parallel()
	from := func(r policies.Rule, sources ...policies.Source) policies.Rule {
		r.Sources = sources
		return r
	}
	rs, gaps := enforce.Compile(input(
		policy("any", nil, callRule(policies.ActionBlock, "", "unlinkat", "rmdir")),
		policy("dir", nil, callRule(policies.ActionAllow, "/d/", "unlinkat")),
		policy("exact", nil, callRule(policies.ActionAudit, "/d", "mkdirat")),
		policy("from", nil, from(callRule(policies.ActionBlock, "", "getpid"), policies.Source{Path: "/bin/a"}, policies.Source{Dir: "/opt/"})),
		policy("below", nil, from(callRule(policies.ActionBlock, "", "getpid"), policies.Source{Dir: "/opt/", Recursive: true})),
	))
	if len(gaps) > 0 {
		t.Fatalf("gaps %v", gaps)
	}
	for _, c := range []struct{ call, path, exe, want string }{
		{"unlinkat", "/x", "", "any"},
		{"rmdir", "", "", "any"},
		{"unlinkat", "/d/e/f", "", "any dir"},
		{"unlinkat", "/d", "", "any dir"},
		{"mkdirat", "/d", "", "exact"},
		{"mkdirat", "/d/e", "", ""},
		{"getpid", "", "/bin/a", "from"},
		{"getpid", "", "/bin/b", ""},
		{"getpid", "", "", ""},
		{"getpid", "", "/opt/a", "below from"},
		{"getpid", "", "/opt/a/b", "below"},
	} {
		d := rs.Decide(enforce.Operation{
			Class: policies.ClassSyscalls, Names: []string{c.call}, Path: c.path, Source: enforce.ProcessSource{Executable: c.exe},
		})
		var names []string
		for _, n := range d.Audits {
			names = append(names, rs.Rules[n].Policy.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != c.want || d.Verdict != enforce.Permit || d.WouldDeny || d.Rule >= 0 {
			t.Errorf("%+v: reported by %q, %+v", c, got, d)
		}
	}
}

// TestSyscallGaps: a call that this kernel lacks, or that takes no path where one is asked for, is said, and the
// rest of the rule holds.
func TestSyscallGaps(t *testing.T) {
	t.Parallel()
	in := input(
		policy("p", nil, callRule(policies.ActionBlock, "", "unlinkat", "mseal"), callRule(policies.ActionBlock, "/d", "getpid", "unlinkat"),
			callRule(policies.ActionBlock, "", "mseal")),
		policy("q", map[string]string{enforce.ModeLabel: "audit"}, callRule(policies.ActionAllow, "", "unlinkat")),
	)
	in.Capabilities.Syscalls = func(name string) (known, path bool) { return name != "mseal", name == "unlinkat" }
	rs, gaps := enforce.Compile(in)
	var got []string
	for _, g := range gaps {
		got = append(got, fmt.Sprintf("%s/%d %s: %s", g.Policy.Name, g.Rule, g.Reason, g.Detail))
	}
	want := []string{
		"p/0 syscalls: this kernel has no system call mseal",
		"p/1 syscalls: getpid takes no path: it is never made on /d",
		"p/2 syscalls: this kernel has no system call mseal",
	}
	if !slices.Equal(got, want) {
		t.Errorf("gaps %q", got)
	}
	if len(rs.Rules) != 3 {
		t.Fatalf("%d rules", len(rs.Rules))
	}
	for _, r := range rs.Rules {
		if !slices.Equal(r.Rule.Object.Syscalls, []string{"unlinkat"}) || r.Rule.Action != policies.ActionAudit {
			t.Errorf("rule %+v", r.Rule)
		}
	}
	if calls := in.Policies[0].Rules[0].Object.Syscalls; len(calls) != 2 {
		t.Errorf("the policy itself was changed: %v", calls)
	}
}

// TestCapabilitiesTravel: the agent tells its capabilities over its socket, without what only it can answer.
func TestCapabilitiesTravel(t *testing.T) {
	t.Parallel()
	c := enforce.Capabilities{Backend: "b", Syscalls: func(string) (bool, bool) { return false, false }}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back enforce.Capabilities
	if err := json.Unmarshal(text, &back); err != nil || back.Backend != "b" || back.Syscalls != nil {
		t.Errorf("%s: %v", text, err)
	}
}
