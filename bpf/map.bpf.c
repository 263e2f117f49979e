//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Executable mappings: a program that is started through an ELF interpreter (ld.so FILE) is never given to exec.

/* The name by which a file that backs another one of a stacked filesystem was opened. */
static __always_inline void mapped_set(struct object *o, struct file *file)
{
	struct path path = {};

	path.mnt = BPF_CORE_READ(file, f_path.mnt);
	path.dentry = BPF_CORE_READ(file, f_path.dentry);
	if (bpf_core_type_exists(struct backing_file) && BPF_CORE_READ(file, f_mode) & FMODE_BACKING) {
		struct backing_file *backing =
			(struct backing_file *)((void *)file - bpf_core_field_offset(struct backing_file, file));

		path.mnt = BPF_CORE_READ(backing, user_path.mnt);
		path.dentry = BPF_CORE_READ(backing, user_path.dentry);
	}
	object_set(o, path.mnt, path.dentry, BPF_CORE_READ(path.dentry, d_inode));
	attributes_set(o, false);
}

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
	deny = judge(s);
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
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *l;
	bool run;

	if (BPF_CORE_READ(file, f_inode) == BPF_CORE_READ(task, mm, exe_file, f_inode))
		return 0;
	l = bpf_task_storage_get(&labels, task, 0, 0);
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

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *unused, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct file *file;

	if (ret || !(prot & PROT_EXEC))
		return ret;
	file = file_or_null(&ctx[0]);
	return file ? map_exec(file, HOOK_MMAP_FILE) : 0;
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	struct file *file;

	if (ret || !(prot & PROT_EXEC) || vma->vm_flags & VM_EXEC)
		return ret;
	file = BPF_CORE_READ(vma, vm_file);
	return file ? map_exec(file, HOOK_FILE_MPROTECT) : 0;
}
