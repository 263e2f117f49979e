// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// maxPeers bounds how many addresses are tried. Each is next to a range that a rule names: if one is let in, it is
// nearly always among the first.
const maxPeers = 512

// unreachable says why nobody, from any address, gets through to any of the TCP ports of the host; "" when somebody does.
func (rs *Ruleset) unreachable(ports string) string {
	why := ""
	for port := range strings.SplitSeq(ports, portsOr) {
		number, err := strconv.Atoi(port)
		if err != nil {
			continue
		}
		if why = rs.closed(number); why == "" {
			return ""
		}
	}
	return why
}

// closed says why nobody gets through to one port.
func (rs *Ruleset) closed(port int) string {
	few := *rs
	few.Rules = slices.DeleteFunc(slices.Clone(rs.Rules), func(r Rule) bool { return !matters(&r, port) })
	var d Decision
	for _, peer := range few.peers() {
		op := Operation{Class: policies.ClassIngress, Flow: &Flow{Peer: peer, Protocol: "TCP", Port: port}}
		if d = few.Decide(op); d.Verdict == Permit {
			return ""
		}
	}
	return few.cause(d, policies.ClassIngress)
}

// matters says whether a rule that is enforced is about connections to a TCP port, whoever begins them, or makes an
// allow-list.
func matters(r *Rule, port int) bool {
	if r.Rule.Class != policies.ClassIngress || r.DryRun {
		return false
	}
	if r.Rule.Action == policies.ActionAllow {
		return true
	}
	f, err := r.Rule.Object.Flow()
	f.Peers = nil
	return err == nil && f.Matches(netip.IPv4Unspecified(), "TCP", port, "")
}

// peers are addresses inside and just outside of what the rules name: whom they let in is among them.
func (rs *Ruleset) peers() []netip.Addr {
	list := []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("::"), netip.MustParseAddr("2001::")}
	for i := range rs.Rules {
		f, err := rs.Rules[i].Rule.Object.Flow()
		if err != nil {
			continue
		}
		for _, p := range f.Prefixes() {
			list = append(list, p.Addr(), p.Addr().Prev(), after(p))
		}
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return !a.IsValid() })
	return list[:min(len(list), maxPeers)]
}

// after is the address behind a prefix; none behind the last.
func after(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last.Next()
}
