// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Flow is what an ObjectFlow's Detail holds. An empty list means any. Fields stand in the order of their
// keys so that the encoding is canonical.
type Flow struct {
	Direction  string   `json:"direction"` // ingress or egress
	Duration   string   `json:"duration,omitempty"`
	Interfaces []string `json:"interfaces,omitempty"`
	Level      string   `json:"level,omitempty"` // pod or policy
	Limit      string   `json:"limit,omitempty"`
	// Peers are prefixes with their host bits cleared.
	Peers []string   `json:"peers,omitempty"`
	Ports []FlowPort `json:"ports,omitempty"`
}

// FlowPort is one range of ports; Protocol is TCP, UDP, SCTP or "" for all of them.
type FlowPort struct {
	First    int    `json:"first"`
	Last     int    `json:"last"`
	Protocol string `json:"protocol,omitempty"`
}

// The directions of a flow: who begins it.
const (
	Ingress = "ingress"
	Egress  = "egress"
)

// FlowProtocols are the protocols that have ports.
func FlowProtocols() []string { return []string{"TCP", "UDP", "SCTP"} }

// Matches says whether a flow with this other end is meant. A rule without ports is for every protocol, one with
// ports for those that have some. An interface that is not known ("") is none that a rule names.
func (f *Flow) Matches(peer netip.Addr, protocol string, port int, iface string) bool {
	return f.hasPeer(peer.Unmap()) && f.hasPort(protocol, port) &&
		(len(f.Interfaces) == 0 || iface != "" && slices.Contains(f.Interfaces, iface))
}

func (f *Flow) hasPeer(peer netip.Addr) bool {
	return len(f.Peers) == 0 || slices.ContainsFunc(f.Prefixes(), func(p netip.Prefix) bool { return p.Contains(peer) })
}

func (f *Flow) hasPort(protocol string, port int) bool {
	return len(f.Ports) == 0 || slices.Contains(FlowProtocols(), protocol) && slices.ContainsFunc(f.Ports, func(p FlowPort) bool {
		return (p.Protocol == "" || p.Protocol == protocol) && p.First <= port && port <= p.Last
	})
}

// Prefixes are the peers. A prefix of IPv4 addresses that is written as one of IPv6 is the one of IPv4.
func (f *Flow) Prefixes() []netip.Prefix {
	list := make([]netip.Prefix, 0, len(f.Peers))
	for _, text := range f.Peers {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			continue // a Detail that this package wrote holds none
		}
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		list = append(list, prefix)
	}
	return list
}

// Flow decodes the Detail of an ObjectFlow.
func (o Object) Flow() (Flow, error) {
	var f Flow
	if err := json.Unmarshal([]byte(o.Detail), &f); err != nil {
		return Flow{}, fmt.Errorf("flow detail: %w", err)
	}
	return f, nil
}

// Device is what an ObjectDevice's Detail holds: numbers and names as written.
type Device struct {
	Class    string `json:"class"`
	Level    int    `json:"level,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	SubClass string `json:"subClass,omitempty"`
}
