//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class dns on the packet: every message that a packet to port 53 holds, by whoever used its socket last.

#define SEGMENTS 128 /* of one send with UDP_SEGMENT */
#define MESSAGES 64 /* of one segment of TCP */

struct asking {
	struct __sk_buff *skb;
	struct scratch *scratch;
	struct owner *owner;
	struct image_header *header;
	u32 ruleset;
	u32 size; /* of one message, 0 when each says so itself */
};

/* The beginning of the message at s->packet.question, of at most size bytes, into s->data. */
static __always_inline void query_load(struct __sk_buff *skb, struct scratch *s, u32 size)
{
	u64 at = s->packet.question, length;

	s->question.size = 0;
	s->question.end = 0;
	if (at >= skb->len)
		return;
	length = skb->len - at;
	if (size && length > size)
		length = size;
	s->question.size = length;
	if (length > QUESTION_BYTES)
		length = QUESTION_BYTES;
	/* At least one, in a way that 6.1's verifier follows. */
	length--;
	BOUND(length, QUESTION_BYTES - 1);
	if (!bpf_skb_load_bytes(skb, at, s->data, length + 1))
		s->question.end = length + 1;
}

/* Decides the message that was read. A datagram that cannot be read as what it claims to be is denied, of a
 * connection the name may be in another segment. */
static __always_inline int query_decide(struct asking *a)
{
	struct scratch *s = a->scratch;
	struct object *o = &s->object[0];

	if (s->question.state == QUESTION_NONE ? !a->size || s->question.end >= QUESTION_HEADER :
						 !a->size && s->question.state != QUESTION_NAMED)
		return 0;
	o->status = s->question.state == QUESTION_NAMED ? PATH_OK : PATH_DETACHED;
	o->attributes = a->owner && a->owner->flags & OWNER_TERMINAL ? ROW_TERMINAL : 0;
	s->packet.denied |= packet_judge(s);
	if (!notable(s) && visible(s))
		s->result.flags = EVENT_VISIBLE;
	if (notable(s))
		packet_tells(s, a->owner);
	return 0;
}

static long datagram_step(u32 index, struct asking *a)
{
	struct scratch *s = a->scratch;

	if (index && s->packet.question >= a->skb->len)
		return 1;
	packet_object(s);
	query_load(a->skb, s, a->size);
	question_read(s, &s->object[0], 0);
	query_decide(a);
	s->packet.question += a->size;
	return 0;
}

LOOPED(datagram_step, struct asking, (struct __sk_buff * skb, u32 index, u32 slot, u32 size), of.scratch,
       (of->skb, index, of->scratch->slot, of->size),
       { .skb = skb, .scratch = scratch_again(slot), .owner = packet_owner(skb), .size = size })

static long message_step(u32 index, struct asking *a)
{
	struct scratch *s = a->scratch;
	u32 length;

	if (s->packet.question >= a->skb->len)
		return 1;
	packet_object(s);
	query_load(a->skb, s, 0);
	if (index)
		question_read(s, &s->object[0], 2);
	else
		question_read_stream(s, &s->object[0]);
	query_decide(a);
	length = s->question.end > 1 ? question_word(s, 0) : 0;
	if (length <= QUESTION_HEADER)
		return 1;
	s->packet.question += 2 + length;
	return 0;
}

LOOPED(message_step, struct asking, (struct __sk_buff * skb, u32 index, u32 slot, u32 size), of.scratch,
       (of->skb, index, of->scratch->slot, of->size),
       { .skb = skb, .scratch = scratch_again(slot), .owner = packet_owner(skb), .size = size })

/* A segment that is sent again was told of. */
static __always_inline int segment_asks(struct asking *a)
{
	struct packet *p = &a->scratch->packet;
	struct flow_entry *f = bpf_map_lookup_elem(&flows, &p->key);
	u32 asked = p->sequence ^ a->ruleset;

	if (f && f->answered && f->asked == asked)
		return f->answered == FLOW_DENIED ? PACKET_DROP : PACKET_PASS;
	LOOP(MESSAGES, message_step, a);
	if (f) {
		f->asked = asked;
		f->answered = p->denied ? FLOW_DENIED : FLOW_PERMITTED;
	} else {
		__builtin_memset(&p->entry, 0, sizeof(p->entry));
		p->entry.seen = bpf_ktime_get_boot_ns();
		p->entry.class = CLASS_EGRESS;
		p->entry.asked = asked;
		p->entry.answered = p->denied ? FLOW_DENIED : FLOW_PERMITTED;
		bpf_map_update_elem(&flows, &p->key, &p->entry, BPF_ANY);
	}
	return p->denied ? PACKET_DROP : PACKET_PASS;
}

/* Where the question goes, for the event. */
static __always_inline void query_endpoint(struct scratch *s)
{
	struct packet *p = &s->packet;

	s->endpoint.family = p->key.family;
	s->endpoint.type = p->raw ? SOCK_RAW : p->key.protocol == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;
	s->endpoint.protocol = p->key.protocol;
	s->endpoint.port = p->key.peer_port;
	__builtin_memcpy(s->endpoint.address, p->key.peer, 16);
}

static __always_inline int packet_asks(struct __sk_buff *skb, struct scratch *s, struct image_header *h)
{
	struct asking a = { .skb = skb, .scratch = s, .header = h, .ruleset = h->id };
	u32 protocol = s->packet.key.protocol;

	if ((protocol != IPPROTO_TCP && protocol_letter(protocol) != 'u') || s->packet.at >= skb->len)
		return PACKET_PASS;
	a.owner = packet_owner(skb);
	if (a.owner && a.owner->flags & OWNER_AGENT)
		return PACKET_PASS;
	s->class = CLASS_DNS;
	s->operation = OP_QUERY;
	s->hook = HOOK_PACKET;
	for (int i = 0; i < SOURCES; i++)
		s->label.source[i] = a.owner ? a.owner->source[i] : 0;
	s->chained = a.owner && a.owner->flags & OWNER_CHAINED;
	for (int i = 0; i < CHAIN; i++)
		s->chain[i] = s->chained && a.owner ? a.owner->chain[i] : 0;
	query_endpoint(s);
	s->packet.question = s->packet.at;
	s->packet.denied = 0;
	if (protocol == IPPROTO_TCP)
		return segment_asks(&a);
	a.size = skb->gso_size;
	if (!a.size)
		a.size = skb->len;
	LOOP(SEGMENTS, datagram_step, &a);
	return s->packet.denied ? PACKET_DROP : PACKET_PASS;
}
