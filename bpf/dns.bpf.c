//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class dns: what is asked of port 53, judged when it is sent, so that the sender is refused and the event knows
// all of it; and again on the packet (query.bpf.c), which nobody can change any more. What is permitted here is
// told there.

/* Whether what is sent goes to port 53 over UDP or TCP; of a raw socket its packets tell. */
static __always_inline bool asks_names(struct sock *sk, struct msghdr *message, struct endpoint *e)
{
	u32 family = sk->__sk_common.skc_family, protocol = sk->sk_protocol;
	struct sockaddr *to = message->msg_name;

	if ((family != AF_INET && family != AF_INET6) || sk->sk_type == SOCK_RAW)
		return false;
	endpoint_set(e, family, sk->sk_type, protocol);
	if (sk->sk_type == SOCK_STREAM ? protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP :
					 protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
		return false;
	if (to)
		endpoint_address(e, to);
	if (!e->port) {
		e->port = PORT(sk->__sk_common.skc_dport);
		if (family == AF_INET)
			__builtin_memcpy(e->address, &sk->__sk_common.skc_daddr, 4);
		else
			BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr);
	}
	return e->port == 53;
}

static __always_inline int dns_judge(struct scratch *s, struct msghdr *message, struct sock *sk)
{
	struct udp_sock *udp = (void *)sk;
	u32 type = sk->sk_type;
	struct object *o = &s->object[0];

	object_set(o, 0, 0, 0);
	o->start = PATH_END;
	if (BPF_CORE_READ(current_task(), signal, tty))
		o->attributes = ROW_TERMINAL;
	/* A piece of what is put together before it is sent, or a page of the kernel's: the packet shows it. */
	if (message->msg_flags & MSG_MORE || (type == SOCK_DGRAM && BPF_CORE_READ(udp, pending)) ||
	    !question_gather(s, message))
		return 0;
	if (type == SOCK_STREAM)
		question_read_stream(s, o);
	else
		question_read(s, o, 0);
	if (s->question.state == QUESTION_NAMED) {
		o->status = PATH_OK;
		return judge_path(s);
	}
	/* No question, or not in this segment. A datagram that cannot be read as what it claims to be is denied. */
	if (type == SOCK_STREAM || (s->question.state == QUESTION_NONE && s->question.end >= QUESTION_HEADER))
		return 0;
	o->status = PATH_DETACHED;
	return judge_path(s);
}

static __always_inline int dns_use(struct socket *sock, struct msghdr *message)
{
	struct sock *sk = sock->sk;
	struct scratch *s;
	int deny = 0;

	if (!sk || !rules_of(CLASS_DNS) || BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_DNS) ? -EACCES : 0;
	begin(s, CLASS_DNS, OP_QUERY, HOOK_SOCKET_SENDMSG);
	s->quiet = QUIET_PERMITTED;
	if (asks_names(sk, message, &s->endpoint)) {
		deny = dns_judge(s, message, sk);
		if (!deny)
			owner_note(sk);
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}
