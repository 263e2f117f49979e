// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Words of the kernel for what a socket is; others are told by number.
var (
	families = map[uint16]string{
		unix.AF_UNIX: "AF_UNIX", unix.AF_INET: "AF_INET", unix.AF_INET6: "AF_INET6", unix.AF_NETLINK: "AF_NETLINK",
		unix.AF_PACKET: "AF_PACKET", unix.AF_SMC: "AF_SMC", unix.AF_VSOCK: "AF_VSOCK",
	}
	socketTypes = map[uint16]string{
		unix.SOCK_STREAM: "SOCK_STREAM", unix.SOCK_DGRAM: "SOCK_DGRAM", unix.SOCK_RAW: "SOCK_RAW",
		unix.SOCK_RDM: "SOCK_RDM", unix.SOCK_SEQPACKET: "SOCK_SEQPACKET",
	}
	socketProtocols = map[uint16]string{
		unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_DCCP: "DCCP",
		unix.IPPROTO_ICMPV6: "ICMPV6", unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_UDPLITE: "UDPLITE", unix.IPPROTO_MPTCP: "MPTCP",
	}
)

// describe names the object of an event that has no path.
func describe(e *enforce.Event, h *bpf.MusterEvent) {
	switch e.Class {
	case policies.ClassNetwork:
		e.Resource, e.Data = socketText(&h.Endpoint), endpointText(&h.Endpoint)
	case policies.ClassDNS:
		e.Resource, e.Data = domainText(e.Resource), endpointText(&h.Endpoint)
	case policies.ClassSyscalls:
		e.Operation, e.Data = callText(h.Names)
	case policies.ClassIngress, policies.ClassEgress:
		e.Resource, e.Data = flowText(e)
	case policies.ClassCapabilities:
		if h.Names != 0 {
			e.Resource = "CAP_" + strings.ToUpper(nameOf(e.Class, bits.TrailingZeros64(h.Names)))
		}
	}
}

// flowText says whom a flow is with, and which way and where it goes.
func flowText(e *enforce.Event) (resource, data string) {
	f, ok := enforce.ParseFlowPath(e.Resource)
	if !ok {
		return "", "direction=" + string(e.Class) // a packet that could not be read
	}
	resource = "remoteip=" + f.Peer.String()
	if f.Protocol != "" {
		resource += fmt.Sprintf(" port=%d protocol=%s", f.Port, f.Protocol)
	}
	data = "direction=" + string(e.Class)
	if f.Interface != "" {
		data += " iface=" + f.Interface
	}
	return resource, data
}

// socketText says what a socket is, in KubeArmor's words.
func socketText(p *bpf.MusterEndpoint) string {
	word := func(words map[uint16]string, n uint16) string { return cmp.Or(words[n], strconv.Itoa(int(n))) }
	return fmt.Sprintf("domain=%s type=%s protocol=%s", word(families, p.Family), word(socketTypes, p.Type), word(socketProtocols, p.Protocol))
}

// endpointText says where it leads, when that was told.
func endpointText(p *bpf.MusterEndpoint) string {
	var address netip.Addr
	switch {
	case p.Port == 0:
		return ""
	case p.Family == unix.AF_INET6:
		address = netip.AddrFrom16(p.Address).Unmap()
	default:
		address = netip.AddrFrom4([4]byte(p.Address[:4]))
	}
	return fmt.Sprintf("remoteip=%s port=%d", address, p.Port)
}

// domainText is a domain name as it is usually written; the kernel side writes it as a path from its end.
func domainText(path string) string {
	labels := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var name strings.Builder
	for i, label := range slices.Backward(labels) {
		name.WriteString(label)
		if i > 0 {
			name.WriteByte('.')
		}
	}
	return name.String()
}
