// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

func TestFlowPath(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]enforce.Flow{
		"/4maaaacah/u/aaaj/=eth0":                        {Peer: netip.MustParseAddr("192.0.2.7"), Protocol: "UDP", Port: 9, Interface: "eth0"},
		"/4maaaacah/t/pppp/=":                            {Peer: netip.MustParseAddr("::ffff:192.0.2.7"), Protocol: "TCP", Port: 65535},
		"/6caabanliaaaaaaaaaaaaaaaaaaaaaaab/o/aaaa/=a=b": {Peer: netip.MustParseAddr("2001:db8::1"), Interface: "a=b"},
	} {
		if got := f.Path(); got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
		f.Peer = f.Peer.Unmap()
		if got, ok := enforce.ParseFlowPath(want); !ok || got != f {
			t.Errorf("%s: %+v %v, want %+v", want, got, ok, f)
		}
	}
	for _, bad := range []string{"", "/", "/4m/u/aaaj/=", "/4maaaacah/u/aaaz/=", "/4maaaacah/u/aa/=", "/4maaaacah/u/aaaj/eth0", "/4maaaacah/uu/aaaj/="} {
		if f, ok := enforce.ParseFlowPath(bad); ok {
			t.Errorf("%q was read as %+v", bad, f)
		}
	}
}

// flowPolicy is a network policy of one rule.
func flowPolicy(action policies.Action, f policies.Flow) *policies.Policy {
	detail, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return &policies.Policy{ID: policies.ID{Kind: policies.KindNetwork, Name: "p"}, Rules: []policies.Rule{{
		Class: policies.Class(f.Direction), Action: action,
		Object: policies.Object{Kind: policies.ObjectFlow, Value: f.Direction, Detail: string(detail)},
	}}}
}

func TestFlowGaps(t *testing.T) {
	t.Parallel()
	for reason, p := range map[string]*policies.Policy{
		"":                enforceable(policies.ActionBlock),
		" ":               flowPolicy(policies.ActionBlock, policies.Flow{Direction: policies.Egress, Ports: []policies.FlowPort{{First: 9, Last: 9}}, Interfaces: []string{"a,b"}}),
		"host-allow-list": enforceable(policies.ActionAllow),
		"quota":           flowPolicy(policies.ActionBlock, policies.Flow{Direction: policies.Egress, Limit: "10MB"}),
	} {
		rs, gaps := enforce.Compile(enforce.CompileInput{
			Subject: enforce.Host, Policies: []*policies.Policy{p}, Capabilities: enforcetest.Capabilities("test"),
		})
		if strings.TrimSpace(reason) == "" && (len(gaps) != 0 || len(rs.Rules) != 1) || strings.TrimSpace(reason) != "" && (len(gaps) != 1 || gaps[0].Reason != reason || len(rs.Rules) != 0) {
			t.Errorf("%q: gaps %+v, rules %+v", reason, gaps, rs.Rules)
		}
	}
}

func enforceable(action policies.Action) *policies.Policy {
	return flowPolicy(action, policies.Flow{Direction: policies.Ingress, Peers: []string{"192.0.2.0/24"}})
}

// TestFlowProtect: a ruleset that lets nobody log in is held, one that lets somebody is not.
func TestFlowProtect(t *testing.T) {
	t.Parallel()
	in := func(action policies.Action, first, last int, peers ...string) *policies.Policy {
		f := policies.Flow{Direction: policies.Ingress, Peers: peers}
		if first > 0 {
			f.Ports = []policies.FlowPort{{First: first, Last: last}}
		}
		return flowPolicy(action, f)
	}
	pairs := []enforce.ProtectPair{{Class: policies.ClassIngress, Source: "/usr/sbin/sshd", Object: "22"}}
	for name, tc := range map[string]struct {
		list []*policies.Policy
		held bool
	}{
		"nothing":                   {nil, false},
		"everybody":                 {[]*policies.Policy{in(policies.ActionBlock, 0, 0)}, true},
		"both families":             {[]*policies.Policy{in(policies.ActionBlock, 1, 100, "0.0.0.0/0", "::/0")}, true},
		"halves":                    {[]*policies.Policy{in(policies.ActionBlock, 22, 22, "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")}, true},
		"one family":                {[]*policies.Policy{in(policies.ActionBlock, 22, 22, "0.0.0.0/0")}, false},
		"all but one network":       {[]*policies.Policy{in(policies.ActionBlock, 22, 22, "0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3", "::/0")}, false},
		"another port":              {[]*policies.Policy{in(policies.ActionBlock, 23, 65535)}, false},
		"some network":              {[]*policies.Policy{in(policies.ActionBlock, 0, 0, "192.0.2.0/24")}, false},
		"list with a way in":        {[]*policies.Policy{in(policies.ActionAllow, 22, 22, "192.0.2.0/24")}, false},
		"list without":              {[]*policies.Policy{in(policies.ActionAllow, 443, 443)}, true},
		"list and Block of the way": {[]*policies.Policy{in(policies.ActionAllow, 22, 22, "192.0.2.0/24"), in(policies.ActionBlock, 0, 0, "192.0.0.0/16")}, true},
	} {
		rs, _ := enforce.Compile(enforce.CompileInput{
			Subject: enforce.Host, Policies: tc.list, Capabilities: enforcetest.Capabilities("test"), AllowHostAllowlist: true,
			Postures: enforce.Postures{Network: enforce.PostureBlock},
		})
		if why := enforce.CheckProtect(rs, pairs); (why != "") != tc.held {
			t.Errorf("%s: %q", name, why)
		}
	}
}
