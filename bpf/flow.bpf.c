//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class egress where a connection begins: the caller learns at once what packets could only let time out. What is
// permitted here is judged again on its packets, which know the interface as well; only they are told of then.

/* The image, when what the caller does with this socket may become packets that it judges. */
static __always_inline struct image_header *flow_image(struct sock *sk)
{
	struct image_header *h;
	u32 family;

	h = rules_of(CLASS_EGRESS);
	if (!h)
		h = rules_of(CLASS_INGRESS);
	if (!h)
		h = rules_of(CLASS_DNS);
	if (!h || !sk || BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return 0;
	family = sk->__sk_common.skc_family;
	return family == AF_INET || family == AF_INET6 || family == AF_SMC ? h : 0;
}

static __always_inline void flow_note(struct socket *sock)
{
	struct sock *sk = sock->sk;

	if (flow_image(sk))
		owner_see(sk);
}

/* A connection that is denied whatever its interface is. */
static __always_inline bool connection_denied(struct scratch *s, struct image_header *h, struct sock *sk)
{
	u32 flags = class_flags(h, CLASS_EGRESS);

	if (!s->endpoint.port)
		return false;
	flow_to(&s->packet, sk, &s->endpoint);
	if (!flow_decide(s))
		return false;
	/* What a rule denies without its interface is denied: a Block is stronger than any Allow. */
	if (s->result.flags && flags & CLASS_INTERFACES)
		return false;
	return !flow_is_local(s) && !is_agent();
}

static __always_inline int flow_connect(struct socket *sock, struct sockaddr *to, u32 operation, u32 hook)
{
	struct sock *sk = sock->sk;
	struct image_header *h = flow_image(sk);
	u32 type, protocol;
	struct scratch *s;
	struct label *l;
	u16 family = 0;
	int deny;

	if (!h)
		return 0;
	owner_see(sk);
	type = sk->sk_type;
	protocol = sk->sk_protocol;
	if (!to || !(class_flags(h, CLASS_EGRESS) & CLASS_CLOSED) || h->mode != MODE_ENFORCE ||
	    (type != SOCK_STREAM && protocol != IPPROTO_SCTP))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_EGRESS) ? -EACCES : 0;
	begin(s, CLASS_EGRESS, operation, hook);
	/* The address's: an SMC socket has one of the internet. */
	bpf_probe_read_kernel(&family, sizeof(family), to);
	endpoint_set(&s->endpoint, family, type, protocol);
	endpoint_address(&s->endpoint, to);
	deny = connection_denied(s, h, sk);
	if (deny) {
		l = TASK_GET(labels, current_task(), 0);
		s->label.source[1] = l ? l->source[1] : 0;
		event_emit(s);
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}
