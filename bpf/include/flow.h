// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Flows: who began the one that a packet belongs to, how it is written as a path, and what the rules say of it.
// Nothing here looks at the current task: packets are seen in whosever time.
#ifndef MUSTER_FLOW_H
#define MUSTER_FLOW_H

#include "judge.h"
#include "socket.h"

/* How long a flow without connections is remembered after its last packet, as the kernel's own tracking does. */
#define FLOW_NANOSECONDS (120ULL * 1000000000)

static __always_inline u8 protocol_letter(u32 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 't';
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return 'u';
	case IPPROTO_SCTP:
		return 's';
	default:
		return 'o';
	}
}

static __always_inline bool has_ports(u32 protocol)
{
	return protocol_letter(protocol) != 'o';
}

/* One byte before the path that is there. */
static __always_inline void put_byte(struct object *o, u8 byte)
{
	u64 at = o->start - 1;

	o->start = at;
	BOUND(at, PATH_END - 1);
	o->buffer[at] = byte;
}

/* Two letters, a to p, for each half of a byte. */
static __always_inline void put_letters(struct object *o, u8 byte)
{
	put_byte(o, 'a' + (byte & 15));
	put_byte(o, 'a' + (byte >> 4));
}

/* Bytes of a word before its first zero byte. */
static __always_inline u32 text_length(u64 word)
{
	u64 zeroes = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;

	return zeroes ? first_bit(zeroes) / 8 : 8;
}

static __always_inline void put_interface(struct object *o, struct packet *p)
{
	u64 length = text_length(load64(p->interface)), at;

	if (length == 8)
		length += text_length(load64(p->interface + 8));
	FORGET(&o->cursor, length);
#pragma clang loop unroll(disable)
	for (u32 i = 1; i < 16; i++) {
		at = length - i;
		if (at > 15)
			break;
		BOUND(at, 15);
		put_byte(o, p->interface[at]);
	}
}

/* The flow as the path that enforce.Flow writes, from its end. The interface: "" while it is not known. */
OF_SCRATCH(int, flow_write)
{
	struct object *o;
	struct packet *p;
	u32 bytes;
	u16 port;

	if (!s)
		return 0;
	o = &s->object[0];
	p = &s->packet;
	bytes = p->key.family == AF_INET ? 4 : 16;
	port = s->class == CLASS_INGRESS ? p->key.port : p->key.peer_port;
	if (!has_ports(p->key.protocol))
		port = 0;
	o->start = PATH_END;
	put_interface(o, p);
	put_byte(o, '=');
	put_byte(o, '/');
	put_letters(o, (u8)port);
	put_letters(o, port >> 8);
	put_byte(o, '/');
	put_byte(o, protocol_letter(p->key.protocol));
	put_byte(o, '/');
#pragma clang loop unroll(disable)
	for (u64 i = 16; i; i--)
		if (i <= bytes)
			put_letters(o, p->key.peer[i - 1]);
	put_byte(o, bytes == 4 ? '4' : '6');
	put_byte(o, '/');
	return 0;
}

/* An object of a packet, which has none of what the hooks' objects have. */
static __always_inline void packet_object(struct scratch *s)
{
	object_set(&s->object[0], 0, 0, 0);
	s->object[0].status = PATH_OK;
	s->object[1].present = 0;
	s->arguments.state = ARGUMENTS_UNKNOWN;
	__builtin_memset(&s->result, 0, sizeof(s->result));
}

/* Answers true when s->result holds the decision of one ruleset. */
static __always_inline bool packet_attempt(struct scratch *s)
{
	struct object *o = &s->object[0];

	__builtin_memset(&s->result, 0, sizeof(s->result));
	if (!judge_image(s))
		return true;
	classify(s);
	s->sourced = 1;
	if (o->status != PATH_OK) {
		unbuildable(s, o);
	} else {
		decide(s, o, DECIDING_PACKETS);
		if (s->cursor.broken)
			broken(s);
	}
	return !s->again;
}

/* Decides the object of a packet, for s->label, into s->result. */
OF_SCRATCH(int, packet_judge)
{
	bool decided = false;

	if (!s)
		return 0;
	s->image = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < JUDGE_ATTEMPTS && !decided; i++)
		decided = packet_attempt(s);
	if (!s->image)
		return 0;
	if (!decided)
		undecided(s);
	if (s->result.verdict == VERDICT_DENY && s->mode == MODE_AUDIT) {
		s->result.verdict = VERDICT_PERMIT;
		s->result.flags |= EVENT_WOULD_DENY;
	}
	return s->result.verdict == VERDICT_DENY;
}

/* Decides the flow of s->packet in a class, into s->result. */
static __always_inline int flow_decide(struct scratch *s)
{
	packet_object(s);
	/* No rule on flows names a source. */
	s->chained = 0;
	for (int i = 0; i < SOURCES; i++)
		s->label.source[i] = 0;
	if (s->packet.unreadable)
		s->object[0].status = PATH_DETACHED;
	else
		flow_write(s);
	return packet_judge(s);
}

/* An IPv4 address in the clothes of IPv6 is the IPv4 address. */
static __always_inline bool is_mapped(const u8 *a)
{
	u64 head, tail;

	__builtin_memcpy(&head, a, 8);
	__builtin_memcpy(&tail, a + 8, 8);
	return !head && (u32)tail == 0xffff0000;
}

/* The other end of a connection that is about to begin. */
static __always_inline void flow_to(struct packet *p, struct sock *sk, struct endpoint *e)
{
	__builtin_memset(&p->key, 0, sizeof(p->key));
	p->key.family = e->family;
	p->key.protocol =
		e->protocol == IPPROTO_MPTCP || e->protocol == IPPROTO_SMC || !e->protocol ? IPPROTO_TCP : e->protocol;
	p->key.peer_port = e->port;
	__builtin_memcpy(p->key.peer, e->address, 16);
	if (e->family == AF_INET6 && is_mapped(e->address)) {
		p->key.family = AF_INET;
		__builtin_memset(p->key.peer, 0, 16);
		__builtin_memcpy(p->key.peer, e->address + 12, 4);
	}
	p->sk = (u64)sk;
	p->unreadable = 0;
	__builtin_memset(p->interface, 0, 16);
}

/* Whether an address is the peer, and if so notes that it is this machine's own. */
static __always_inline bool own_address(struct scratch *s, const void *address, u32 bytes)
{
	u32 a[4] = {}, b[4] = {};

	__builtin_memcpy(b, s->packet.key.peer, 16);
	if (bpf_probe_read_kernel(a, bytes, address))
		return false;
	if (a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3])
		return false;
	s->packet.local = 1;
	return true;
}

static long address_step(u32 index, struct scratch **at)
{
	struct packet *p = &(*at)->packet;
	struct in_ifaddr *ifa = (void *)p->address;

	if (!ifa || own_address(*at, &ifa->ifa_local, 4))
		return 1;
	p->address = (u64)BPF_CORE_READ(ifa, ifa_next);
	return 0;
}

LOOPED(address_step, struct scratch *, (u32 index, u32 slot), of, (index, (*of)->slot), scratch_again(slot))

static long address6_step(u32 index, struct scratch **at)
{
	struct packet *p = &(*at)->packet;
	struct list_head *node = (void *)p->address;
	struct inet6_ifaddr *ifa = (void *)node - bpf_core_field_offset(struct inet6_ifaddr, if_list);
	struct net_device *device = (void *)p->device;

	if (!node || node == &BPF_CORE_READ(device, ip6_ptr)->addr_list || own_address(*at, &ifa->addr, 16))
		return 1;
	p->address = (u64)BPF_CORE_READ(node, next);
	return 0;
}

LOOPED(address6_step, struct scratch *, (u32 index, u32 slot), of, (index, (*of)->slot), scratch_again(slot))

static long device_step(u32 index, struct scratch **at)
{
	struct packet *p = &(*at)->packet;
	struct sock *sk = (void *)p->sk;
	struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	struct list_head *node = (void *)p->device;
	struct net_device *device = (void *)node - bpf_core_field_offset(struct net_device, dev_list);

	if (!node || !net || node == &net->dev_base_head)
		return 1;
	p->device = (u64)device;
	if (p->key.family == AF_INET) {
		p->address = (u64)BPF_CORE_READ(device, ip_ptr, ifa_list);
		LOOP(1024, address_step, at);
	} else {
		p->address = (u64)BPF_CORE_READ(device, ip6_ptr, addr_list.next);
		LOOP(1024, address6_step, at);
	}
	p->device = (u64)BPF_CORE_READ(device, dev_list.next);
	return p->local != 0;
}

LOOPED(device_step, struct scratch *, (u32 index, u32 slot), of, (index, (*of)->slot), scratch_again(slot))

/* Whether the peer of s->packet is this machine: what goes there goes through the loopback interface. Looked for
 * only when something is about to be denied. */
static __noinline int flow_is_local(struct scratch *s)
{
	struct packet *p = &s->packet;
	struct sock *sk = (void *)p->sk;

	p->local = 0;
	p->device = (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net, dev_base_head.next);
	if (p->key.family == AF_INET && (p->key.peer[0] == 127 || !p->key.peer[0]))
		return 1;
	/* Nobody's address leads to oneself. */
	if (!load64(p->key.peer) && !load64(p->key.peer + 8))
		return 1;
	LOOP(4096, device_step, &s);
	return p->local;
}

#endif
