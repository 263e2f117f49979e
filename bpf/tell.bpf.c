//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Events of packets, which know no more of the process than the socket does.

#define PACKET_PASS 1
#define PACKET_DROP 0

static __always_inline struct owner *packet_owner(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : 0;
	return sk ? bpf_sk_storage_get(&owners, sk, 0, 0) : 0;
}

/* Who the event names: the process that used the socket last, and its program while it is the one that runs. */
static __always_inline void packet_process(struct scratch *s)
{
	struct task_struct *task = current_task();
	struct event *e = &s->event;

	event_empty(s);
	event_path(s, &s->object[0], 0);
	e->tty[0] = 0;
	__builtin_memcpy(e->comm, s->packet.owner.comm, sizeof(e->comm));
	if (TRUSTED(task, tgid) != s->packet.owner.pid)
		return;
	if (executable_find(s, false))
		event_path(s, &s->source, 2);
	if (executable_find(s, true))
		event_path(s, &s->source, 3);
}

/* Emits one event for what s->result says, as event_emit does, in the name of s->packet.owner. */
OF_SCRATCH(int, packet_tell)
{
	if (!s || !event_speaks(s->result.verdict) ||
	    (s->result.flags & EVENT_DRY && !dry_speaks(s, s->packet.owner.flags & OWNER_AGENT)))
		return 0;
	count(COUNT_EVENTS);
	s = scratch_again(s->slot);
	if (!s) {
		count(COUNT_RING_FULL);
		return 0;
	}
	s->label.source[1] = s->packet.owner.source[1];
	s->event.pid = s->packet.owner.pid;
	s->event.ppid = s->packet.owner.ppid;
	s->event.uid = s->packet.owner.uid;
	event_key_of(s, s->packet.owner.source[0]);
	if (event_fold(s))
		return 0;
	event_result(s);
	packet_process(s);
	event_send(s, false);
	return 0;
}

static __always_inline void packet_tells(struct scratch *s, struct owner *o)
{
	if (o)
		s->packet.owner = *o;
	else
		__builtin_memset(&s->packet.owner, 0, sizeof(s->packet.owner));
	packet_tell(s);
}
