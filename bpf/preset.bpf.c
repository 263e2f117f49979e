//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Presets: ready-made protections. Their objects are numbers (enum preset); what was touched goes into the event.
// These programs are attached only while a ruleset asks for them, beside those of the other classes on the same hooks.

static __always_inline bool preset_wanted(u32 flag)
{
	struct task_struct *task = current_task();

	return !(TRUSTED(task, flags) & PF_KTHREAD) && has_flag(CLASS_PRESET, flag);
}

/* Decides by the presets in names; object[0] is what is touched. */
static __always_inline int preset_judge(struct scratch *s, u64 names)
{
	struct object *o = &s->object[0];
	u32 status = o->status;
	int deny;

	o->status = PATH_NAMED;
	o->names = names;
	o->inode = 0;
	s->quiet = QUIET_ALWAYS;
	deny = judge_number(s);
	o->status = status;
	/* Of the agent itself nothing is told. */
	if (deny || (s->result.verdict != VERDICT_DENY && (s->result.flags || s->result.audits[0])))
		event_emit(s);
	return deny;
}

/* A file that has no name in any file system is known by that of its dentry: memfd:NAME. */
static __always_inline void preset_name(struct object *o)
{
	struct dentry *dentry = (struct dentry *)o->dentry;
	struct qstr name;
	u64 length, at;

	if (o->status != PATH_INTERNAL || bpf_core_read(&name, sizeof(name), &dentry->d_name))
		return;
	length = name.len;
	if (length > 255)
		return;
	BOUND(length, 255);
	at = PATH_END - length;
	o->start = at;
	BOUND(at, PATH_END - 1);
	if (length && !bpf_probe_read_kernel(&o->buffer[at], length, name.name))
		o->status = PATH_OK;
}

#define DEV_SHM 0x6d68732f7665642fULL /* "/dev/shm" */
#define RUN_SHM 0x6d68732f6e75722fULL /* "/run/shm" */

/* Memory without a name, or a file of the file systems for shared memory. */
static __always_inline bool is_fileless(struct object *o)
{
	u64 at = o->start, first;

	if (o->status == PATH_INTERNAL)
		return true;
	if (o->status != PATH_OK)
		return false;
	BOUND(at, PATH_END - 1);
	first = load64(&o->buffer[at]);
	return (first == DEV_SHM || first == RUN_SHM) && o->buffer[at + 8] == '/';
}

SEC("lsm/bprm_check_security")
int BPF_PROG(preset_exec, struct linux_binprm *bprm, int ret)
{
	struct scratch *s;
	struct file *file;
	int deny = 0;

	if (ret || !preset_wanted(CLASS_PRESET_EXEC))
		return ret;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_PRESET) ? -EACCES : 0;
	begin(s, CLASS_PRESET, OP_EXEC, HOOK_BPRM_CHECK);
	file = bprm->file;
	object_set(&s->object[0], file->f_path.mnt, file->f_path.dentry, 0);
	walk(&s->object[0]);
	if (is_fileless(&s->object[0])) {
		preset_name(&s->object[0]);
		deny = preset_judge(s, 1ULL << PRESET_FILELESS);
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}

/* Memory becomes executable. Of a file that has a name that is class process; while the kernel starts a program it
 * maps that, which was judged. */
static __always_inline int preset_memory(struct file *file, u32 hook)
{
	struct task_struct *task = current_task();
	struct scratch *s;
	int deny = 0;

	if (!preset_wanted(CLASS_PRESET_MAP) || (file && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve)))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_PRESET) ? -EACCES : 0;
	begin(s, CLASS_PRESET, OP_MAP, hook);
	object_set(&s->object[0], 0, 0, 0);
	if (file) {
		s->object[0].mount = (u64)BPF_CORE_READ(file, f_path.mnt);
		s->object[0].dentry = (u64)BPF_CORE_READ(file, f_path.dentry);
		walk(&s->object[0]);
	}
	if (!file || s->object[0].status == PATH_INTERNAL) {
		if (file)
			preset_name(&s->object[0]);
		deny = preset_judge(s, 1ULL << PRESET_ANONYMOUS);
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}

SEC("lsm/mmap_file")
int BPF_PROG(preset_map, struct file *unused, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	if (ret || !(prot & PROT_EXEC))
		return ret;
	return preset_memory(file_or_null(&ctx[0]), HOOK_MMAP_FILE);
}

SEC("lsm/file_mprotect")
int BPF_PROG(preset_protect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	if (ret || !(prot & PROT_EXEC) || vma->vm_flags & VM_EXEC)
		return ret;
	return preset_memory(BPF_CORE_READ(vma, vm_file), HOOK_FILE_MPROTECT);
}

#define ENVIRON 0x006e6f7269766e65ULL /* "environ" with its NUL */

/* Whether the inode of procfs tells of another process than the caller: by what the kernel keeps of it, so that
 * neither a number nor the place where procfs is mounted counts. */
static __always_inline bool is_of_another(struct inode *inode)
{
	struct proc_inode *p =
		(struct proc_inode *)((void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode));
	struct hlist_node *first = BPF_CORE_READ(p, pid, tasks[0].first);
	struct task_struct *other;

	if (!first)
		return false;
	other = (struct task_struct *)((void *)first - bpf_core_field_offset(struct task_struct, pid_links));
	return BPF_CORE_READ(other, signal) != BPF_CORE_READ(current_task(), signal);
}

/* What procfs has of another process. */
SEC("lsm/file_open")
int BPF_PROG(preset_open, struct file *file, int ret)
{
	struct inode *inode = file->f_inode;
	u64 names = 1ULL << PRESET_PROC, name = 0;
	struct scratch *s;
	int deny;

	if (ret || BPF_CORE_READ(inode, i_sb, s_magic) != PROC_SUPER_MAGIC || !preset_wanted(CLASS_PRESET_OPEN) ||
	    !is_of_another(inode))
		return ret;
	bpf_probe_read_kernel(&name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	if (name == ENVIRON)
		names |= 1ULL << PRESET_ENVIRON;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_PRESET) ? -EACCES : 0;
	begin(s, CLASS_PRESET, OP_OPEN, HOOK_FILE_OPEN);
	object_set(&s->object[0], file->f_path.mnt, file->f_path.dentry, 0);
	walk(&s->object[0]);
	deny = preset_judge(s, names);
	scratch_give(s);
	return deny ? -EACCES : 0;
}
