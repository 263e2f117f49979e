//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Hooks that keep labels: they decide nothing and deny nothing.

SEC("lsm/bprm_creds_for_exec")
int BPF_PROG(label_exec_begins, struct linux_binprm *bprm, int ret)
{
	struct task_struct *task = current_task();
	struct label *l = TASK_GET(labels, task, 0);
	struct start *st = TASK_GET(starts, task, 0);

	if (l)
		l->pending_count = 0;
	if (st)
		st->passes = 0;
	return ret;
}

/* What becomes of the chains of a thread that has started a program. Answers the label's flags for them. */
static __noinline u32 chain_started(u32 flags, u32 passes)
{
	struct chain *c = TASK_GET(chains, current_task(), 0);
	u32 now = 0;

	if (!c)
		return 0;
	if (flags & LABEL_CHAINED) {
		for (int i = 0; i < CHAIN; i++)
			c->caller[i] = c->source[i];
		now |= LABEL_CALLER_CHAINED;
	}
	if (passes > 2) {
		for (int i = 0; i < CHAIN; i++)
			c->source[i] = c->pending[i];
		now |= LABEL_CHAINED;
	}
	return now;
}

/* A thread's chains go on in its child. */
static __noinline bool chain_fork(struct task_struct *task)
{
	struct chain *parent = TASK_GET(chains, current_task(), 0), *child;

	child = TASK_GET(chains, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!parent || !child) {
		count(COUNT_LABEL_MEMORY);
		return false;
	}
	for (int i = 0; i < CHAIN; i++) {
		child->source[i] = parent->source[i];
		child->caller[i] = parent->caller[i];
		child->classes[i] = parent->classes[i];
	}
	return true;
}

SEC("lsm/bprm_committed_creds")
void BPF_PROG(label_exec_done, struct linux_binprm *bprm)
{
	struct label *l = TASK_GET(labels, current_task(), 0);
	u32 chained = 0;

	if (!l || !l->pending_count)
		return;
	if (l->flags & LABEL_CHAINED || l->pending_count > 2)
		chained = chain_started(l->flags, l->pending_count);
	for (int i = 0; i < SOURCES; i++) {
		l->caller[i] = l->source[i];
		l->source[i] = l->pending[i];
	}
	if (l->pending_count == 1) {
		l->source[1] = 0;
		for (int i = 0; i < SOURCE_MARKS; i++)
			l->source[2 + SOURCE_MARKS + i] = 0;
	}
	l->pending_count = 0;
	l->image = 0;
	l->flags = LABEL_KNOWN | LABEL_FRESH | chained;
	l->started = publication(host_image());
	for (int i = 0; i < USED_DESCRIPTORS; i++)
		l->used_file[i] = 0;
}

SEC("lsm/task_alloc")
int BPF_PROG(label_fork, struct task_struct *task, unsigned long clone_flags, int ret)
{
	struct label *parent, *child;

	if (ret)
		return ret;
	parent = TASK_GET(labels, current_task(), 0);
	if (!parent || !(parent->flags & LABEL_KNOWN))
		return 0;
	child = TASK_GET(labels, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!child) {
		count(COUNT_LABEL_MEMORY);
		return 0;
	}
	for (int i = 0; i < SOURCES; i++) {
		child->source[i] = parent->source[i];
		child->caller[i] = parent->caller[i];
		child->classes[i] = parent->classes[i];
	}
	for (int i = 0; i < NAMED_CLASSES; i++)
		child->names[i] = parent->names[i];
	child->postures = parent->postures;
	child->image = parent->image;
	child->flags = parent->flags;
	if (parent->flags & (LABEL_CHAINED | LABEL_CALLER_CHAINED) && !chain_fork(task))
		child->flags = parent->flags & ~(LABEL_CHAINED | LABEL_CALLER_CHAINED);
	child->started = parent->started;
	return 0;
}

/* Labels the threads that were there before: run once after attaching. */
SEC("iter/task")
int label_existing(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct scratch *s;
	struct label *l;

	if (!task)
		return 0;
	l = TASK_GET(labels, task, 0);
	if (l && l->flags & LABEL_KNOWN)
		return 0;
	s = scratch_take();
	if (!s)
		return 0;
	if (executable_of(task, &s->source)) {
		label_derive(s);
		l = TASK_GET(labels, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!l) {
			count(COUNT_LABEL_MEMORY);
		} else if (!(l->flags & LABEL_KNOWN)) {
			for (int i = 0; i < SOURCES; i++)
				l->source[i] = s->label.source[i];
			l->flags = LABEL_KNOWN;
		}
	}
	scratch_give(s);
	return 0;
}

/* Writes the number of each thread of a program that has no label. */
SEC("iter/task")
int label_missing(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct label *l;
	u32 pid;

	if (!task || !BPF_CORE_READ(task, mm, exe_file))
		return 0;
	l = TASK_GET(labels, task, 0);
	if (l && l->flags & LABEL_KNOWN)
		return 0;
	pid = BPF_CORE_READ(task, pid);
	bpf_seq_write(ctx->meta->seq, &pid, sizeof(pid));
	return 0;
}
