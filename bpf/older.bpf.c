//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What Linux 5.10 needs beside the others' programs, and what takes the place of those that it has not.

/* A thread is gone: another one may get its address. */
SEC("lsm/task_free")
void BPF_PROG(task_freed, struct task_struct *task)
{
	u64 key = (u64)task;

	bpf_map_delete_elem(&labels, &key);
	bpf_map_delete_elem(&chains, &key);
	bpf_map_delete_elem(&starts, &key);
}

/* Neither questions nor packets are judged there. */
static __always_inline void flow_note(struct socket *sock)
{
}

static __always_inline int flow_connect(struct socket *sock, struct sockaddr *to, u32 operation, u32 hook)
{
	return 0;
}

static __always_inline int dns_use(struct socket *sock, struct msghdr *message)
{
	return 0;
}
