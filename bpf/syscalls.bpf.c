//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class syscalls: reports, never denies. These programs are attached only while a ruleset asks for them.
//
// A call is told when it returns, with its true result. What it was made on is taken where the kernel comes to the
// object: a path that is read from the caller could be another one by then. Judged there, it is kept until the return.

/* Keeps the event of a call that is under way. */
OF_SCRATCH(int, call_keep)
{
	struct task_struct *task = current_task();
	struct call *c;
	u64 size;

	if (!s)
		return 0;
	s = scratch_again(s->slot);
	if (!s)
		return 0;
	c = TASK_GET(calls, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c) {
		count(COUNT_CALL_MEMORY);
		return 0;
	}
	event_key(s, task);
	event_result(s);
	event_task(s, task);
	s->event.names = s->object[0].names;
	s->key.objects[1] = s->object[0].names;
	event_paths(s);
	size = s->size;
	if (size > CALL_DATA) {
		/* The parent's path is the last, and the first to go; then the source's. */
		size -= s->event.lengths[3];
		s->event.lengths[3] = 0;
		if (size > CALL_DATA) {
			size -= s->event.lengths[2];
			s->event.lengths[2] = 0;
		}
	}
	if (size > CALL_DATA)
		size = 0;
	c->size = size;
	c->key = s->key;
	c->event = s->event;
	BOUND(size, 8191);
	if (size <= CALL_DATA)
		bpf_probe_read_kernel(c->data, size, s->data);
	return 0;
}

/* Tells a call that was kept, or counts it with others like it. */
OF_SCRATCH1(int, call_tell, long, result)
{
	struct task_struct *task = current_task();
	struct call *c;
	u64 size;

	if (!s)
		return 0;
	s = scratch_again(s->slot);
	c = TASK_GET(calls, task, 0);
	if (!s || !c)
		return 0;
	count(COUNT_EVENTS);
	s->key = c->key;
	s->event = c->event;
	/* What a signal interrupts is done again or fails with EINTR. */
	s->key.error = result < 0 && result >= -4095 ? (result <= -512 ? 4 : -result) : 0;
	s->event.error = s->key.error;
	size = c->size;
	BOUND(size, 8191);
	if (size <= CALL_DATA)
		bpf_probe_read_kernel(s->data, size, c->data);
	s->size = size;
	if (!event_fold(s))
		event_send(s, true);
	return 0;
}

static __always_inline void call_begin(struct made *m, struct scratch *s)
{
	begin(s, CLASS_SYSCALLS, OP_SYSCALL, HOOK_SYSCALL);
	object_set(&s->object[0], 0, 0, 0);
	s->object[0].names = m->number;
}

/* Where the caller has a path that is followed, as kernels before 7 keep it. */
static __always_inline u64 followed_at(struct filename *name)
{
	return bpf_core_field_exists(name->uptr) ? (u64)BPF_CORE_READ(name, uptr) : 0;
}

/* Its text, where the kernel does not keep that. */
static __always_inline const char *followed_text(struct filename *name)
{
	return bpf_core_field_exists(name->uptr) ? 0 : BPF_CORE_READ(name, name);
}

#define SPELLED (2 * PATH_END) /* where in the scratch's data the second text begins */

struct spelling {
	struct scratch *scratch;
	u32 length;
};

/* Eight bytes of two texts; cursor.set says that they are not alike. */
static long spelled_step(u32 index, struct spelling *p)
{
	struct scratch *s = p->scratch;
	u64 at = index * 8, different;

	if (at >= p->length)
		return 1;
	BOUND(at, PATH_END - 1);
	different = load64(&s->data[at]) ^ load64(&s->data[SPELLED + at]);
	if (!(different & text_mask(p->length, at)))
		return 0;
	s->cursor.set = 1;
	return 1;
}

LOOPED(spelled_step, struct spelling, (u32 index, u32 slot, u32 length), of.scratch,
       (index, of->scratch->slot, of->length), { .scratch = scratch_again(slot), .length = length })

/* Whether the caller has that text at an address. Who changes it meanwhile keeps the call from being told. */
static __noinline bool is_spelled(struct scratch *s, u64 address, const char *text)
{
	struct spelling p = { .scratch = s };
	long length = bpf_probe_read_user_str(s->data, PATH_END, (void *)address);

	if (length <= 0 || length != bpf_probe_read_kernel_str(&s->data[SPELLED], PATH_END, text))
		return false;
	p.length = length;
	s->cursor.set = 0;
	LOOP(PATH_END / 8, spelled_step, &p);
	return !s->cursor.set;
}

/* The kernel has come to what the caller's system call is made on. by_name says that a name is made, moved or
 * removed; otherwise uptr is where the caller has the path that was followed, or text is that path. */
static __noinline int call_object(struct vfsmount *mnt, struct dentry *dentry, u64 uptr, const char *text, bool by_name)
{
	struct made m = {};
	struct scratch *s;
	u64 given;

	if (!made_find(&m, current_registers()) || !m.call->group || !m.call->path ||
	    by_name != !!(m.call->flags & CALL_BY_NAME))
		return 0;
	given = by_name ? 0 : made_argument(&m, m.call->path);
	if (!by_name && (!given || (!text && uptr != given)))
		return 0;
	/* Of two sets, during an upgrade, one keeps and tells. */
	if (!event_speaks(VERDICT_PERMIT))
		return 0;
	s = scratch_take();
	if (!s)
		return 0;
	call_begin(&m, s);
	s->object[0].mount = (u64)mnt;
	s->object[0].dentry = (u64)dentry;
	if (!text || is_spelled(s, given, text)) {
		walk(&s->object[0]);
		if (call_judge(&m, s))
			call_keep(s);
	}
	scratch_give(s);
	return 0;
}

/* Calls that never return are told when they begin. */
SEC("tp_btf/sys_enter")
int BPF_PROG(call_starts, struct pt_regs *regs, long id)
{
	struct made m = {};
	struct scratch *s;

	if (!made_find(&m, regs) || !m.call->group || !(m.call->flags & CALL_NO_RETURN) ||
	    !event_speaks(VERDICT_PERMIT))
		return 0;
	s = scratch_take();
	if (!s)
		return 0;
	call_begin(&m, s);
	if (call_judge(&m, s)) {
		call_keep(s);
		call_tell(s, 0);
		TASK_DROP(calls, current_task());
	}
	scratch_give(s);
	return 0;
}

/* Nothing was kept: the call takes no path, or failed before it came to a file. */
static __always_inline bool call_ends(struct made *m, struct scratch *s, long result)
{
	call_begin(m, s);
	if (m->call->path && !given_path(m, s, result < 0))
		return false;
	s->object[0].names = m->number;
	if (!call_judge(m, s))
		return false;
	call_keep(s);
	return true;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_returns, struct pt_regs *regs, long result)
{
	struct task_struct *task = current_task();
	struct made m = {};
	struct scratch *s;
	bool kept;

	if (!made_find(&m, regs) || !event_speaks(VERDICT_PERMIT))
		return 0;
	kept = TASK_GET(calls, task, 0);
	/* A start that has succeeded looks like an execve of the new program: what is not kept, no rule names. A
	 * child comes out of a fork that its parent reports. */
	if (!kept &&
	    (!m.call->group || m.call->flags & CALL_NO_RETURN || (!result && m.call->flags & (CALL_EXEC | CALL_FORK))))
		return 0;
	s = scratch_take();
	if (!s)
		return 0;
	if (kept || call_ends(&m, s, result)) {
		call_tell(s, result);
		TASK_DROP(calls, task);
	}
	scratch_give(s);
	return 0;
}

static __always_inline bool is_error(const void *p)
{
	return (u64)p >= (u64)-4095;
}

/* Paths that are followed: one of the next two, according to the kernel, and the third beside it. */
SEC("fexit/user_path_at_empty")
int BPF_PROG(call_followed_empty, int dfd, const char *name, unsigned int flags, struct path *path, int *empty, int ret)
{
	return ret ? 0 : call_object(BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), (u64)name, 0, false);
}

SEC("fexit/user_path_at")
int BPF_PROG(call_followed, int dfd, const char *name, unsigned int flags, struct path *path, int ret)
{
	return ret ? 0 : call_object(BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), (u64)name, 0, false);
}

SEC("fexit/filename_lookup")
int BPF_PROG(call_looked_up, int dfd, struct filename *name, unsigned int flags, struct path *path, struct path *root,
	     int ret)
{
	if (ret || !name || is_error(name))
		return 0;
	return call_object(BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), followed_at(name),
			   followed_text(name), false);
}

/* Files that are opened: one of the next two. */
static __always_inline int call_opens(struct filename *name, struct file *file)
{
	if (!file || is_error(file) || !name || is_error(name))
		return 0;
	return call_object(BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), followed_at(name),
			   followed_text(name), false);
}

SEC("fexit/do_filp_open")
int BPF_PROG(call_opened, int dfd, struct filename *name, const void *op, struct file *file)
{
	return call_opens(name, file);
}

SEC("fexit/do_file_open")
int BPF_PROG(call_opened_file, int dfd, struct filename *name, const void *op, struct file *file)
{
	return call_opens(name, file);
}

/* Names that are made, moved or removed: before that happens, and whatever other security modules say. */
SEC("fentry/security_path_unlink")
int BPF_PROG(call_unlinks, const struct path *dir, struct dentry *dentry)
{
	return call_object(BPF_CORE_READ(dir, mnt), dentry, 0, 0, true);
}

SEC("fentry/security_path_rmdir")
int BPF_PROG(call_rmdirs, const struct path *dir, struct dentry *dentry)
{
	return call_object(BPF_CORE_READ(dir, mnt), dentry, 0, 0, true);
}

SEC("fentry/security_path_mkdir")
int BPF_PROG(call_mkdirs, const struct path *dir, struct dentry *dentry)
{
	return call_object(BPF_CORE_READ(dir, mnt), dentry, 0, 0, true);
}

SEC("fentry/security_path_mknod")
int BPF_PROG(call_mknods, const struct path *dir, struct dentry *dentry)
{
	return call_object(BPF_CORE_READ(dir, mnt), dentry, 0, 0, true);
}

SEC("fentry/security_path_symlink")
int BPF_PROG(call_symlinks, const struct path *dir, struct dentry *dentry)
{
	return call_object(BPF_CORE_READ(dir, mnt), dentry, 0, 0, true);
}

SEC("fentry/security_path_link")
int BPF_PROG(call_links, struct dentry *old, const struct path *new_dir)
{
	return call_object(BPF_CORE_READ(new_dir, mnt), old, 0, 0, true);
}

SEC("fentry/security_path_rename")
int BPF_PROG(call_renames, const struct path *old_dir, struct dentry *old)
{
	return call_object(BPF_CORE_READ(old_dir, mnt), old, 0, 0, true);
}
