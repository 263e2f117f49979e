//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Classes ingress and egress, on the packet: every packet that a socket of this machine sends or is given, but for
// those on the loopback interface. A flow is judged by the rules of who began it, whichever way a packet of it goes.

/* Whether somebody listens where this connection ends, which others then began: of one that is older than what is
 * known of flows. */
static __always_inline bool is_listened_to(struct __sk_buff *skb, struct packet *p, bool out)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;
	u16 port = PORT(p->key.port);
	bool listens;
	u32 size;

	if (p->key.family == AF_INET) {
		__builtin_memcpy(&tuple.ipv4.saddr, out ? p->destination : p->source, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, out ? p->source : p->destination, 4);
		tuple.ipv4.dport = port;
		size = sizeof(tuple.ipv4);
		found = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, out ? p->destination : p->source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, out ? p->source : p->destination, 16);
		tuple.ipv6.dport = port;
		size = sizeof(tuple.ipv6);
		found = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!found)
		return false;
	listens = found->state == TCP_LISTEN;
	bpf_sk_release(found);
	return listens;
}

/* CLASS_INGRESS when others began the flow, else CLASS_EGRESS. */
static __always_inline u32 flow_class(struct __sk_buff *skb, struct packet *p, struct flow_entry *f, bool out)
{
	struct sock *sk = (void *)p->sk;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (p->key.protocol == IPPROTO_TCP && !p->raw) {
		if (state == TCP_LISTEN || state == TCP_NEW_SYN_RECV)
			return CLASS_INGRESS;
		if (state == TCP_SYN_SENT)
			return CLASS_EGRESS;
		if (f)
			return f->class;
		return is_listened_to(skb, p, out) ? CLASS_INGRESS : CLASS_EGRESS;
	}
	if (p->echo == ECHO_ASKED)
		return out ? CLASS_EGRESS : CLASS_INGRESS;
	if (f && bpf_ktime_get_boot_ns() - f->seen < FLOW_NANOSECONDS)
		return f->class;
	/* What the kernel says by itself (an echo, a reset) answers something. */
	return !out || (p->kernel && p->raw) ? CLASS_INGRESS : CLASS_EGRESS;
}

/* Neighbours and groups: a machine that does not speak of them is cut off, whatever its rules permit. */
static __always_inline bool is_housekeeping(struct packet *p)
{
	if (!p->kernel)
		return false;
	if (p->key.family == AF_INET)
		return p->next == IPPROTO_IGMP;
	return p->next == IPPROTO_ICMPV6 && ((p->first >= 130 && p->first <= 137) || p->first == 143);
}

/* Keeps what was decided. A flow without connections that was denied has not begun. */
static __always_inline void flow_keep(struct scratch *s, struct flow_entry *f)
{
	struct packet *p = &s->packet;

	if (f)
		*f = p->entry;
	else if (p->key.protocol == IPPROTO_TCP || p->entry.said != FLOW_DENIED)
		bpf_map_update_elem(&flows, &p->key, &p->entry, BPF_ANY);
}

/* Decides a packet, unless the same was decided of its flow before. Of a connection the first is told of, of other
 * flows each. */
static __always_inline int packet_decide(struct __sk_buff *skb, struct scratch *s, struct image_header *h, bool out)
{
	struct packet *p = &s->packet;
	struct flow_entry *f = bpf_map_lookup_elem(&flows, &p->key);
	u32 class = flow_class(skb, p, f, out);
	bool connection = p->key.protocol == IPPROTO_TCP && !p->raw, same, notable, exempt;
	struct owner *o = 0;
	int deny;

	same = f && !p->unreadable && f->class == class && f->image == h->id && f->interface == skb->ifindex &&
	       !(p->begins && f->begun != p->sequence);
	if (same && (f->said == FLOW_PERMITTED || (connection && f->said != FLOW_UNDECIDED))) {
		f->seen = bpf_ktime_get_boot_ns();
		return f->said == FLOW_DENIED ? PACKET_DROP : PACKET_PASS;
	}
	s->class = class;
	s->operation = out ? OP_SEND : OP_RECEIVE;
	s->hook = out ? HOOK_PACKET : HOOK_PACKET_IN;
	deny = flow_decide(s);
	notable = deny || s->result.flags || s->result.audits[0];
	if (notable)
		o = packet_owner(skb);
	exempt = deny && o && o->flags & OWNER_AGENT;
	if (exempt) {
		count(COUNT_AGENT);
		deny = 0;
	}
	p->entry.seen = bpf_ktime_get_boot_ns();
	p->entry.image = s->image;
	p->entry.class = class;
	p->entry.said = deny ? FLOW_DENIED : notable ? FLOW_WATCHED : FLOW_PERMITTED;
	p->entry.interface = skb->ifindex;
	p->entry.begun = p->begins ? p->sequence : f ? f->begun : 0;
	p->entry.asked = f ? f->asked : 0;
	p->entry.answered = f ? f->answered : 0;
	flow_keep(s, f);
	/* What answers a datagram is no more to tell of, unless it is denied. */
	if (deny || (notable && !exempt && (connection || out == (class == CLASS_EGRESS))))
		packet_tells(s, o);
	return deny ? PACKET_DROP : PACKET_PASS;
}

static __always_inline bool has_flow_rules(struct image_header *h, u32 flag)
{
	return (class_flags(h, CLASS_INGRESS) | class_flags(h, CLASS_EGRESS)) & flag;
}

/* Loopback is exempt from rules on flows, and not from those on names. */
static __always_inline int packet(struct __sk_buff *skb, bool out)
{
	void *image = host_image();
	struct image_header *h = image ? image_head(image) : 0;
	bool flows, names;
	struct scratch *s;
	struct sock *sk;
	int answer = PACKET_PASS;

	if (!h || !skb->sk)
		return PACKET_PASS;
	flows = skb->ifindex != LOOPBACK_IFINDEX && has_flow_rules(h, CLASS_HAS_RULES);
	names = out && class_flags(h, CLASS_DNS) & (CLASS_HAS_RULES | CLASS_VISIBLE);
	if (!flows && !names)
		return PACKET_PASS;
	s = scratch_take();
	if (!s)
		return h->mode == MODE_ENFORCE && ((flows && has_flow_rules(h, CLASS_CLOSED)) ||
						   (names && class_flags(h, CLASS_DNS) & CLASS_CLOSED)) ?
			       PACKET_DROP :
			       PACKET_PASS;
	sk = BPF_CORE_READ((struct sk_buff *)skb, sk);
	s->packet.sk = (u64)sk;
	s->packet.kernel = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
	s->packet.raw = BPF_CORE_READ(sk, sk_type) == SOCK_RAW;
	packet_read(skb, s, out);
	if (names && s->packet.key.peer_port == 53)
		answer = packet_asks(skb, s, h);
	if (flows && answer == PACKET_PASS && !is_housekeeping(&s->packet))
		answer = packet_decide(skb, s, h, out);
	scratch_give(s);
	return answer;
}

SEC("cgroup_skb/egress")
int packet_out(struct __sk_buff *skb)
{
	return packet(skb, true);
}

SEC("cgroup_skb/ingress")
int packet_in(struct __sk_buff *skb)
{
	return packet(skb, false);
}
