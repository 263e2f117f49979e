// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a packet says of its flow: read from the network header on, where the kernel's control groups see it.
#ifndef MUSTER_PACKET_H
#define MUSTER_PACKET_H

#include "flow.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define HEADERS 16 /* of one IPv6 packet; more are not read */

#define SYN 0x02
#define ACK 0x10

struct ipv4 {
	u8 version_words;
	u8 before_fragment[5];
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 sum;
	u8 source[4];
	u8 destination[4];
};

struct packet_reading {
	struct __sk_buff *skb;
	struct packet *packet;
};

/* Whether a header is none that stands between IPv6 and what it carries. */
static __always_inline bool is_carried(u32 header)
{
	switch (header) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MOBILITY:
	case IPPROTO_AH:
	case IPPROTO_FRAGMENT:
		return false;
	default:
		return true;
	}
}

/* One header between IPv6 and what it carries. */
static long header_step(u32 index, struct packet_reading *r)
{
	struct packet *p = r->packet;
	u16 words[2] = {}; /* of a fragment the second is where in the whole it belongs */
	u8 *head = (u8 *)words;

	if (is_carried(p->next)) {
		p->unreadable = 0;
		return 1;
	}
	if (bpf_skb_load_bytes(r->skb, p->at, words, sizeof(words)))
		return 1;
	if (p->next == IPPROTO_FRAGMENT) {
		/* The first piece of several has the ports, if there are any. */
		if (PORT(words[1]) & 0xfff8) {
			p->next = head[0];
			p->unreadable = !is_carried(p->next) || has_ports(p->next);
			return 1;
		}
		p->at += 8;
	} else {
		p->at += p->next == IPPROTO_AH ? (head[1] + 2) * 4 : (head[1] + 1) * 8;
	}
	p->next = head[0];
	return 0;
}

LOOPED_NEAR(header_step, struct packet_reading)

static __always_inline void read_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct ipv4 ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return;
	__builtin_memcpy(p->source, ip.source, 4);
	__builtin_memcpy(p->destination, ip.destination, 4);
	p->key.family = AF_INET;
	p->next = ip.protocol;
	p->at = (ip.version_words & 15) * 4;
	p->unreadable = (PORT(ip.fragment) & 0x1fff) && has_ports(ip.protocol);
}

static __always_inline void read_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct packet_reading r = { .skb = skb, .packet = p };
	u8 next;

	if (bpf_skb_load_bytes(skb, 6, &next, 1) || bpf_skb_load_bytes(skb, 8, p->source, 16) ||
	    bpf_skb_load_bytes(skb, 24, p->destination, 16))
		return;
	p->key.family = AF_INET6;
	p->next = next;
	p->at = 40;
	LOOP(HEADERS, header_step, &r);
}

/* Ports, and whether a connection begins. Of what is sent in pieces only the first has them. */
static __always_inline void read_ports(struct __sk_buff *skb, struct packet *p)
{
	struct {
		u16 ports[2];
		u32 sequence;
		u32 acknowledged;
		u8 words;
		u8 flags;
	} head = {};

	if (p->unreadable)
		return;
	if (!has_ports(p->next)) {
		bpf_skb_load_bytes(skb, p->at, &p->first, 1);
		return;
	}
	p->unreadable = bpf_skb_load_bytes(skb, p->at, head.ports, 4) != 0;
	p->source_port = head.ports[0];
	p->destination_port = head.ports[1];
	if (p->next == IPPROTO_TCP && !bpf_skb_load_bytes(skb, p->at, &head, 14)) {
		p->begins = (head.flags & (SYN | ACK)) == SYN;
		p->sequence = head.sequence;
		p->at += (head.words >> 4) * 4;
	} else {
		p->at += 8;
	}
}

/* Whether an ICMP packet asks for an echo, or is one. */
static __always_inline u32 echo_of(struct packet *p)
{
	if (p->next == IPPROTO_ICMP)
		return p->first == 8 ? ECHO_ASKED : p->first == 0 ? ECHO_ANSWERED : ECHO_NONE;
	if (p->next == IPPROTO_ICMPV6)
		return p->first == 128 ? ECHO_ASKED : p->first == 129 ? ECHO_ANSWERED : ECHO_NONE;
	return ECHO_NONE;
}

/* Reads a packet that leaves, or one that arrives. */
GLOBAL int packet_read(struct __sk_buff *skb, struct scratch *s, bool out)
{
	struct net_device *device;
	struct packet *p;
	struct sock *sk;

	if (!s)
		return 0;
	device = BPF_CORE_READ((struct sk_buff *)skb, dev);
	p = &s->packet;
	sk = (void *)p->sk;
	p->unreadable = 1;
	p->begins = 0;
	p->first = 0;
	p->next = 0;
	p->source_port = 0;
	p->destination_port = 0;
	__builtin_memset(&p->key, 0, sizeof(p->key));
	if (skb->protocol == PORT(ETH_P_IP))
		read_ipv4(skb, p);
	else
		read_ipv6(skb, p);
	read_ports(skb, p);
	BPF_CORE_READ_INTO(&p->interface, device, name);
	p->key.net = (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	p->key.protocol = p->next;
	p->key.port = PORT(out ? p->source_port : p->destination_port);
	p->key.peer_port = PORT(out ? p->destination_port : p->source_port);
	/* The socket's own number: on the way out the packet's may be another by now. */
	if (!p->raw && p->key.port)
		p->key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	/* Who asks whom for an echo tells two flows apart. */
	p->echo = p->unreadable ? ECHO_NONE : echo_of(p);
	if (p->echo)
		p->key.port = (p->echo == ECHO_ASKED) == out ? ECHO_ASKED : ECHO_ANSWERED;
	if (p->key.family == AF_INET)
		__builtin_memcpy(p->key.peer, out ? p->destination : p->source, 4);
	else
		__builtin_memcpy(p->key.peer, out ? p->destination : p->source, 16);
	return 0;
}

#endif
