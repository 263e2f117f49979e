// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Who uses a socket, noted by the hooks for what is decided on its packets.
#ifndef MUSTER_OWNER_H
#define MUSTER_OWNER_H

#include "judge.h"

/* The scripts in the middle that the caller was started from. */
static __noinline void owner_chain(struct owner *o)
{
	struct chain *c = TASK_GET(chains, current_task(), 0);

	if (!c)
		return;
	for (int i = 0; i < CHAIN; i++)
		o->chain[i] = c->source[i];
	o->flags |= OWNER_CHAINED;
}

/* Notes the caller. */
static __noinline void owner_note(struct sock *sk)
{
	struct task_struct *task = current_task();
	struct owner *o = bpf_sk_storage_get(&owners, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct label *l;

	if (!o)
		return;
	l = TASK_GET(labels, task, 0);
	for (int i = 0; i < SOURCES; i++)
		o->source[i] = l ? l->source[i] : 0;
	o->pid = bpf_get_current_pid_tgid() >> 32;
	o->ppid = BPF_CORE_READ(task, real_parent, tgid);
	o->uid = (u32)bpf_get_current_uid_gid();
	o->flags = caller_is_agent() ? OWNER_AGENT : 0;
	if (BPF_CORE_READ(task, signal, tty))
		o->flags |= OWNER_TERMINAL;
	if (l && l->flags & LABEL_CHAINED)
		owner_chain(o);
	bpf_get_current_comm(o->comm, sizeof(o->comm));
}

/* Notes the caller unless it was the last one, too. */
static __always_inline void owner_see(struct sock *sk)
{
	struct owner *o = bpf_sk_storage_get(&owners, sk, 0, 0);

	if (!o || o->pid != bpf_get_current_pid_tgid() >> 32)
		owner_note(sk);
}

#endif
