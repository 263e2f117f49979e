//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Mappings. Executable ones: a program that is started through an ELF interpreter (ld.so FILE) is never given to
// exec. All others: of class file.

static __always_inline int map_judge(struct file *file, struct label *l, bool run, u32 hook)
{
	struct scratch *s = scratch_take();
	int deny;

	if (!s)
		return fails_closed(CLASS_PROCESS) ? -EACCES : 0;
	begin(s, CLASS_PROCESS, OP_MAP, hook);
	mapped_set(&s->object[0], file);
	if (run)
		s->by_caller = 1;
	else
		s->object[0].attributes |= ROW_MAPPED;
	deny = judge_start(s);
	scratch_give(s);
	if (deny)
		return -EACCES;
	if (run && l)
		l->flags &= ~LABEL_FRESH;
	return 0;
}

/* A file becomes executable memory. While the kernel starts a program it maps the program, which was judged, and
 * its ELF interpreter. The first file that a program maps which was started without one counts as run, by who
 * started that program; otherwise only what blocks the very file counts. */
static __always_inline int map_exec(struct file *file, u32 hook)
{
	struct task_struct *task = current_task();
	struct label *l;
	bool run;

	if (BPF_CORE_READ(file, f_inode) == BPF_CORE_READ(task, mm, exe_file, f_inode))
		return 0;
	/* The leader's: of the threads of a program any may be the one that maps its first file. */
	l = held_label();
	run = l && l->flags & LABEL_FRESH && !BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
	if (!concerns(CLASS_PROCESS, false)) {
		if (l)
			l->flags &= ~LABEL_FRESH;
		return 0;
	}
	if (l && !run)
		l->flags &= ~LABEL_FRESH;
	if (!run && !has_flag(CLASS_PROCESS, CLASS_MAPPED))
		return 0;
	return map_judge(file, l, run, hook);
}

/* An argument that may be NULL: some verifiers take it for a pointer that never is, and drop the comparison. */
static __always_inline struct file *file_or_null(unsigned long long *argument)
{
	u64 file = 0;

	bpf_probe_read_kernel(&file, sizeof(file), argument);
	return (struct file *)file;
}

/* A mapping is a read, or with shared pages that can be written to a change: of class file, when the descriptor is a
 * held one. What was opened under the ruleset was judged for all that its descriptor can do. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct file *any;
	bool writes = prot & PROT_WRITE && flags & MAP_SHARED;

	if (ret)
		return ret;
	any = file_or_null(&ctx[0]);
	if (!any || !file)
		return 0;
	if (prot & PROT_EXEC && map_exec(any, HOOK_MMAP_FILE))
		return -EACCES;
	return held_is_object(file) ? held_use(file, writes ? FMODE_WRITE : FMODE_READ, HOOK_MMAP_FILE) : 0;
}

/* A shared mapping that was made for reading becomes one for writing. The file may back a stacked one. */
static __always_inline int map_raise(struct file *file)
{
	u32 number = publication(host_image());
	struct scratch *s;
	int deny;

	if (!concerns(CLASS_FILE, false) || BPF_CORE_READ(file, f_inode, i_sb, s_flags) & SB_NOUSER)
		return 0;
	if (held_settled(file, FMODE_WRITE, number))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, OP_MAP, HOOK_FILE_MPROTECT);
	mapped_set(&s->object[0], file);
	deny = judge_start(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	unsigned long had = vma->vm_flags;
	bool runs = prot & PROT_EXEC && !(had & VM_EXEC);
	bool writes = prot & PROT_WRITE && had & VM_SHARED && !(had & VM_WRITE);
	struct file *any, *file;

	if (ret || (!runs && !writes))
		return ret;
	any = BPF_CORE_READ(vma, vm_file);
	file = vma->vm_file;
	if (!any || !file)
		return 0;
	if (runs && map_exec(any, HOOK_FILE_MPROTECT))
		return -EACCES;
	return writes ? map_raise(file) : 0;
}
