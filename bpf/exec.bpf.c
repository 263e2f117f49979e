//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class process.

/* Keeps a script's path for events; longer ones than struct script_path holds go without. */
static __always_inline void script_note(struct scratch *s)
{
	struct script_path *path = (struct script_path *)s->data;
	struct object *o = &s->object[0];
	u64 at = o->start, length = PATH_END - at;

	if (at >= PATH_END || length >= sizeof(path->path))
		return;
	BOUND(at, PATH_END - 1);
	BOUND(length, 511);
	if (length >= sizeof(path->path))
		return;
	path->length = length;
	bpf_probe_read_kernel(path->path, length, &o->buffer[at]);
	bpf_map_update_elem(&scripts, &s->hash, path, BPF_ANY);
}

/* The executable of the pass before was a script in the middle: neither the first one nor the last. */
static __noinline void chain_note(struct label *l)
{
	struct chain *c = TASK_GET(chains, current_task(), BPF_LOCAL_STORAGE_GET_F_CREATE);
	u64 middle = l->pending_count - 2;

	if (!c) {
		count(COUNT_LABEL_MEMORY);
		return;
	}
	if (!middle)
		__builtin_memset(c->pending, 0, sizeof(c->pending));
	BOUND(middle, MIDDLES - 1);
	c->pending[middle] = l->pending[0];
	for (u64 i = 0; i < SOURCE_MARKS; i++)
		c->pending[CHAIN_MARK(middle, i)] = l->pending[SOURCE_MARKS + i];
}

/* Notes what is being started; it becomes the label when the exec can no longer fail. The kernel comes by
 * once for a script and once more for each interpreter: the first is the script, the last the executable, and what is
 * between them a chain of scripts. */
OF_SCRATCH(int, exec_note)
{
	struct task_struct *task = current_task();
	struct label *l;
	u64 hash;

	if (!s)
		return 0;
	l = TASK_GET(labels, task, 0);
	if (!l || !(l->flags & LABEL_KNOWN)) {
		label_current(s);
		l = TASK_GET(labels, task, 0);
	}
	marks_of(&s->object[0]);
	hash = source_hash(&s->object[0]);
	if (!l)
		return 0;
	if (!l->pending_count)
		source_note(l->pending, &s->object[0], hash, 1);
	if (l->pending_count >= 2)
		chain_note(l);
	source_note(l->pending, &s->object[0], hash, 0);
	l->pending_count++;
	s->hash = hash;
	return 0;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(exec_check, struct linux_binprm *bprm, int ret)
{
	struct scratch *s;
	struct file *file;
	int deny = 0;

	if (ret)
		return ret;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_PROCESS) ? -EACCES : 0;
	begin(s, CLASS_PROCESS, OP_EXEC, HOOK_BPRM_CHECK);
	file = LOOSE(LOOSE(bprm)->file);
	object_set(&s->object[0], file->f_path.mnt, file->f_path.dentry, file->f_inode);
	attributes_set(&s->object[0], false);
	walk(&s->object[0]);
	s->hash = 0;
	exec_note(s);
	if (s->hash && bprm->buf[0] == '#' && bprm->buf[1] == '!')
		script_note(s);
	if (s->object[0].home)
		s->object[0].status = PATH_NONE;
	if (concerns(CLASS_PROCESS, true)) {
		bool depends = has_flag(CLASS_PROCESS, CLASS_ARGUMENTS);

		if (depends)
			arguments_begin(s, bprm);
		deny = judge_start(s);
		if (depends && !deny)
			arguments_end(s, bprm);
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}
