// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a socket counts as, and where it leads.
#ifndef MUSTER_SOCKET_H
#define MUSTER_SOCKET_H

#include "judge.h"

#define PORT(n) ((u16)((n) << 8 | (n) >> 8)) /* network order */

#define NAME(protocol) (1ULL << (protocol))

/* The names of the protocol of an internet socket. SMC carries TCP, and falls back to it. */
static __always_inline u64 protocol_names(u32 family, u32 type, u32 protocol)
{
	switch (protocol) {
	case 0:
		return type == SOCK_STREAM ? NAME(PROTOCOL_TCP) : type == SOCK_DGRAM ? NAME(PROTOCOL_UDP) : 0;
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
	case IPPROTO_SMC:
		return type == SOCK_STREAM ? NAME(PROTOCOL_TCP) : 0;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return type == SOCK_DGRAM ? NAME(PROTOCOL_UDP) : 0;
	case IPPROTO_ICMP:
		return family == AF_INET ? NAME(PROTOCOL_ICMP) : 0;
	case IPPROTO_ICMPV6:
		return family == AF_INET6 ? NAME(PROTOCOL_ICMPV6) : 0;
	case IPPROTO_SCTP:
		return NAME(PROTOCOL_SCTP);
	case IPPROTO_DCCP:
		return NAME(PROTOCOL_DCCP);
	default:
		return 0;
	}
}

/* At most OBJECT_NAMES of them. */
static __always_inline u64 socket_names(u32 family, u32 type, u32 protocol)
{
	u64 names = 0;

	switch (type) {
	case SOCK_STREAM:
		names = NAME(PROTOCOL_STREAM);
		break;
	case SOCK_DGRAM:
		names = NAME(PROTOCOL_DGRAM);
		break;
	case SOCK_SEQPACKET:
		names = NAME(PROTOCOL_SEQPACKET);
		break;
	case SOCK_RDM:
		names = NAME(PROTOCOL_RDM);
		break;
	}
	if (family == AF_PACKET)
		return names | NAME(PROTOCOL_PACKET) | NAME(PROTOCOL_RAW) | NAME(PROTOCOL_ALL);
	if (family == AF_SMC)
		return names | NAME(PROTOCOL_TCP) | NAME(PROTOCOL_ALL);
	if (family != AF_INET && family != AF_INET6)
		return names ? names : NAME(PROTOCOL_OTHER);
	if (type == SOCK_RAW)
		names |= NAME(PROTOCOL_RAW);
	return names | NAME(PROTOCOL_ALL) | protocol_names(family, type, protocol);
}

/* The address that the kernel has copied from the caller. */
static __always_inline void endpoint_address(struct endpoint *e, const struct sockaddr *to)
{
	struct {
		u16 family, port;
		u32 rest[6];
	} raw = {};

	if (!to || bpf_probe_read_kernel(&raw, 8, to))
		return;
	e->port = PORT(raw.port);
	if (raw.family == AF_INET) {
		__builtin_memcpy(e->address, &raw.rest[0], 4);
	} else if (raw.family == AF_INET6) {
		bpf_probe_read_kernel(e->address, 16, (void *)to + 8);
	} else {
		e->port = 0;
	}
}

static __always_inline void endpoint_set(struct endpoint *e, u32 family, u32 type, u32 protocol)
{
	e->family = family;
	e->type = type;
	e->protocol = protocol;
	e->port = 0;
	__builtin_memset(e->address, 0, sizeof(e->address));
}

#endif
