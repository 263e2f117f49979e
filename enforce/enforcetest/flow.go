// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforcetest

import (
	"encoding/json"
	"net/netip"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func isFlow(class policies.Class) bool {
	return class == policies.ClassIngress || class == policies.ClassEgress
}

// flowRule is what a rule on flows speaks of, over few addresses and ports, so that rules meet.
func (g *Generator) flowRule(class policies.Class) policies.Object {
	f := policies.Flow{Direction: string(class)}
	for range g.r.IntN(3) {
		f.Peers = append(f.Peers, pick(g.r, "192.0.2.7/32", "192.0.2.0/29", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/61", "2001:db8::7/128", "::/0",
			"::ffff:192.0.2.0/122"))
	}
	for range g.r.IntN(3) {
		first := pick(g.r, 1, 9, 53, 1000, 4095, 32768)
		f.Ports = append(f.Ports, policies.FlowPort{
			First: first, Last: pick(g.r, first, first+1, first+900, 65535), Protocol: pick(g.r, "", "TCP", "UDP", "SCTP"),
		})
	}
	for range max(0, g.r.IntN(4)-2) {
		f.Interfaces = append(f.Interfaces, pick(g.r, "eth0", "a,b", "e[t]*"))
	}
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return policies.Object{Kind: policies.ObjectFlow, Value: f.Direction, Detail: string(text)}
}

// Flows is a ruleset of a host with rules on flows that it begins.
func (g *Generator) Flows(rules int) *enforce.Ruleset {
	rs := &enforce.Ruleset{Subject: enforce.Host, Mode: enforce.ModeEnforce, Postures: enforce.Postures{Network: g.posture()}}
	for i := range rules {
		object := g.flowRule(policies.ClassEgress)
		rs.Rules = append(rs.Rules, enforce.Rule{
			Policy: policies.ID{Kind: policies.KindNetwork, Name: "flows"}, Objects: []string{object.Value},
			Rule: policies.Rule{
				Index: i, Class: policies.ClassEgress, Object: object,
				Action: pick(g.r, policies.ActionAllow, policies.ActionBlock, policies.ActionBlock, policies.ActionAudit),
			},
		})
	}
	return rs
}

// Flow is a flow near those of the rules.
func (g *Generator) Flow() *enforce.Flow {
	f := &enforce.Flow{
		Peer: netip.MustParseAddr(pick(g.r, "192.0.2.7", "192.0.2.8", "192.0.2.63", "192.0.2.64", "198.51.100.1", "2001:db8::7", "2001:db8:0:7::",
			"2001:db8:0:8::", "::ffff:192.0.2.7")),
		Protocol: pick(g.r, "", "TCP", "UDP", "SCTP"), Interface: pick(g.r, "", "eth0", "eth1", "a,b", "a", "e[t]*"),
	}
	if f.Protocol != "" {
		f.Port = pick(g.r, 1, 2, 8, 9, 10, 53, 909, 953, 999, 1000, 1899, 1900, 1901, 4095, 4096, 32768, 65535)
	}
	return f
}
