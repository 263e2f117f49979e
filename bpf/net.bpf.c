//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class network: every use of a socket is judged, so that one that was made before the policy, or by another
// program, does not escape.

static __always_inline int socket_decide(u32 family, u32 type, u32 protocol, struct sockaddr *to, u32 operation,
					 u32 hook)
{
	u64 names = socket_names(family, type, protocol);
	struct scratch *s;
	int deny;

	if (!concerns_names(CLASS_NETWORK, names))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_NETWORK) ? -EACCES : 0;
	begin(s, CLASS_NETWORK, operation, hook);
	object_named(&s->object[0], names);
	endpoint_set(&s->endpoint, family, type, protocol);
	endpoint_address(&s->endpoint, to);
	deny = judge_number(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

/* A socket that exists. The kernel's own (of file systems, of MPTCP) are not the caller's. */
static __always_inline int socket_use(struct socket *sock, struct sockaddr *to, u32 operation, u32 hook)
{
	struct sock *sk = sock->sk;

	if (!sk || !rules_of(CLASS_NETWORK) || BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return 0;
	return socket_decide(sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol, to, operation, hook);
}

SEC("lsm/socket_create")
int BPF_PROG(socket_create, int family, int type, int protocol, int kern, int ret)
{
	if (ret || kern)
		return ret;
	return socket_decide(family, type, protocol, 0, OP_SOCKET, HOOK_SOCKET_CREATE);
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *sock, struct sockaddr *address, int size, int ret)
{
	return ret ? ret : socket_use(sock, address, OP_BIND, HOOK_SOCKET_BIND);
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *sock, int backlog, int ret)
{
	if (!ret)
		ret = socket_use(sock, 0, OP_LISTEN, HOOK_SOCKET_LISTEN);
	if (!ret)
		flow_note(sock);
	return ret;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int size, int ret)
{
	if (!ret)
		ret = socket_use(sock, address, OP_CONNECT, HOOK_SOCKET_CONNECT);
	return ret ? ret : flow_connect(sock, address, OP_CONNECT, HOOK_SOCKET_CONNECT);
}

SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *sock, struct socket *fresh, int ret)
{
	return ret ? ret : socket_use(sock, 0, OP_ACCEPT, HOOK_SOCKET_ACCEPT);
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *message, int size, int ret)
{
	if (!ret)
		ret = socket_use(sock, message->msg_name, OP_SEND, HOOK_SOCKET_SENDMSG);
	if (!ret)
		ret = dns_use(sock, message);
	/* A connection may begin by sending. */
	return ret ? ret : flow_connect(sock, message->msg_name, OP_SEND, HOOK_SOCKET_SENDMSG);
}
