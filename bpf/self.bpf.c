//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Self-protection. Attached only where the host's configuration asks for it: see include/self*.h.

/* Who was made by the agent's launcher is known from its birth: whose parent it is now says nothing, since every orphan
 * becomes a child of process 1. */
SEC("lsm/task_alloc")
int BPF_PROG(self_fork, struct task_struct *task, unsigned long clone_flags, int ret)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 *mark;

	if (ret || clone_flags & CLONE_THREAD || !self_is_launcher(current, self_get()))
		return ret;
	mark = TASK_GET(self_marks, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (mark)
		*mark = SELF_LAUNCHED;
	return 0;
}

/* Its launcher's child that runs the agent's executable in the agent's unit is an agent. Whatever else it runs, it is
 * not, and will not be. */
SEC("lsm/bprm_committed_creds")
void BPF_PROG(self_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct___self *t = (void *)task;
	u32 *mark = TASK_GET(self_marks, task, 0);
	struct self *self;
	struct inode *inode;
	u32 device, generation;
	u64 number;

	if (!mark || !*mark)
		return;
	self = self_get();
	if (!self || *mark != SELF_LAUNCHED || BPF_CORE_READ(t, ptrace)) {
		*mark = 0;
		return;
	}
	inode = BPF_CORE_READ(bprm, file, f_inode);
	number = BPF_CORE_READ(inode, i_ino);
	device = BPF_CORE_READ(inode, i_sb, s_dev);
	generation = place_generation(inode);
	if (number == self->program && device == self->program_device && generation == self->program_generation)
		*mark = self_in_unit(task) ? SELF_AGENT : 0;
	else if (number != self->starter || device != self->starter_device || generation != self->starter_generation ||
		 !(self_in_unit(task) || self_with_launcher(task)))
		*mark = 0;
}

/* What was launched for another unit is not the agent, and nobody brings it into the agent's but itself. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(self_join, struct cgroup *group, const char *path, struct task_struct *task, bool threadgroup)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 *mark = TASK_GET(self_marks, task, 0);
	struct self *self = self_get();

	if (!mark || *mark != SELF_LAUNCHED || !self || !self->unit[0])
		return 0;
	if (BPF_CORE_READ(group, kn, id) == self->launcher_group)
		return 0;
	if (!self_group_is_unit(group) || (current != task && !self_is_launcher(current, self)))
		*mark = 0;
	return 0;
}

/* A descriptor of a map. One for reading would do: a program that is given it may write all the same. */
SEC("lsm/bpf_map")
int BPF_PROG(self_map, struct bpf_map *map, unsigned int mode, int ret)
{
	if (ret || !self_map_is_own(map) || self_caller_is())
		return ret;
	return self_deny(EPERM);
}

/* A descriptor of a program: others could be put in its place, or be made part of it. */
SEC("lsm/bpf_prog")
int BPF_PROG(self_program, struct bpf_prog *prog, int ret)
{
	if (ret || !self_program_is_own(prog) || self_caller_is())
		return ret;
	return self_deny(EPERM);
}

static __noinline bool self_link_is_own(u32 fd)
{
	struct file___self *file = (void *)descriptor_file(fd);
	struct bpf_link *link = file ? BPF_CORE_READ(file, private_data) : 0;
	struct bpf_prog *program = link ? BPF_CORE_READ(link, prog) : 0;

	return program && self_program_is_own(program);
}

/* Links have no hook of their own. A program that could answer for our hooks is loaded by nobody but process 1. */
SEC("lsm/bpf")
int BPF_PROG(self_command, int cmd, void *attr, unsigned int size)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 first = 0, type = 0;

	/* What another program refused does not get here, and what comes fourth is not the same on all kernels. */
	if (cmd != BPF_PROG_LOAD && cmd != BPF_LINK_DETACH && cmd != BPF_LINK_UPDATE)
		return 0;
	bpf_probe_read_kernel(&first, sizeof(first), attr + BPF_TYPE_AT);
	if (cmd == BPF_PROG_LOAD) {
		bpf_probe_read_kernel(&type, sizeof(type), attr + BPF_ATTACH_TYPE_AT);
		if (!self_could_answer(first, type) || self_is_launcher(task, self_get()))
			return 0;
	} else if (!self_link_is_own(first)) {
		return 0;
	}
	return self_is(task) ? 0 : self_deny(EPERM);
}

/* A program that writes into processes could write into the agent. */
SEC("lsm/locked_down")
int BPF_PROG(self_locked_down, int what, int ret)
{
	if (ret || !bpf_core_enum_value_exists(enum lockdown_reason, LOCKDOWN_BPF_WRITE_USER) ||
	    what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_BPF_WRITE_USER) || self_caller_is())
		return ret;
	return self_deny(EPERM);
}

/* ptrace, process_vm_writev, /proc/PID/mem, pidfd_getfd. Whoever holds the launcher, or what it is about to start, can
 * become the agent. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(self_ptrace, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret || !(mode & PTRACE_MODE_ATTACH))
		return ret;
	if (!self_is(child) && !self_mark_of(child->group_leader) && !self_is_launcher(child, self_get()))
		return 0;
	return self_caller_is() ? 0 : self_deny(EPERM);
}

static __always_inline int self_signal(struct task_struct *task, int signal)
{
	struct task_struct *caller = bpf_get_current_task_btf();

	if (!signal || signal == SIGHUP || signal == SIGCONT || signal == SIGURG || !self_is(task))
		return 0;
	if (self_is(caller) || self_is_launcher(caller, self_get()))
		return 0;
	return self_deny(EPERM);
}

SEC("lsm/task_kill")
int BPF_PROG(self_kill, struct task_struct *p, void *info, int sig, void *cred, int ret)
{
	return ret ? ret : self_signal(p, sig);
}

/* A file's owner can be any process, and its signal any. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(self_sigio, struct task_struct *tsk, void *fown, int sig, int ret)
{
	if (ret || !self_is(tsk))
		return ret;
	return self_deny(EPERM);
}

/* A limit of processor time or memory would kill it. */
SEC("lsm/task_setrlimit")
int BPF_PROG(self_rlimit, struct task_struct *p, unsigned int resource, void *limit, int ret)
{
	struct task_struct *caller = bpf_get_current_task_btf();

	if (ret || !self_is(p) || self_is(caller) || self_is_launcher(caller, self_get()))
		return ret;
	return self_deny(EPERM);
}

SEC("lsm/inode_create")
int BPF_PROG(self_create, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ? ret : self_new_name(dentry, SELF_CHANGES);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(self_mkdir, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ? ret : self_new_name(dentry, SELF_SETS_UP);
}

SEC("lsm/inode_mknod")
int BPF_PROG(self_mknod, struct inode *dir, struct dentry *dentry, u16 mode, u32 dev, int ret)
{
	return ret ? ret : self_new_name(dentry, SELF_CHANGES);
}

SEC("lsm/inode_symlink")
int BPF_PROG(self_symlink, struct inode *dir, struct dentry *dentry, const char *old_name, int ret)
{
	if (!ret && self_is_units(dentry) && !self_caller_is())
		return self_deny(EACCES);
	return ret ? ret : self_new_name(dentry, SELF_CHANGES);
}

/* A second name elsewhere would be one that is not the agent's. */
SEC("lsm/inode_link")
int BPF_PROG(self_link, struct dentry *old, struct inode *dir, struct dentry *new, int ret)
{
	if (!ret)
		ret = self_name(old, SELF_CHANGES);
	return ret ? ret : self_name(new, SELF_CHANGES);
}

SEC("lsm/inode_unlink")
int BPF_PROG(self_unlink, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : self_name(dentry, SELF_CHANGES);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(self_rmdir, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : self_name(dentry, SELF_CHANGES);
}

/* A directory on the way to what is the agent's would take it along. */
SEC("lsm/inode_rename")
int BPF_PROG(self_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new, int ret)
{
	if (ret)
		return ret;
	if ((self_place_of(old) | self_place_of(new)) & PLACE_ABOVE || self_is_units(old) || self_is_units(new)) {
		if (!self_caller_is())
			return self_deny(EACCES);
	}
	ret = self_name(old, SELF_CHANGES);
	return ret ? ret : self_new_name(new, SELF_CHANGES);
}

/* Owner, mode, times and size, also by way of a filesystem that is stacked. */
SEC("lsm/inode_setattr")
int self_setattr(unsigned long long *ctx)
{
	u64 first = ctx[0], second = ctx[1], third = ctx[2];
	struct iattr *attr = (struct iattr *)(setattr_idmap ? third : second);
	struct dentry *dentry = (struct dentry *)(setattr_idmap ? second : first);

	return self_name(dentry, BPF_CORE_READ(attr, ia_valid) & ATTR_SIZE ? SELF_CHANGES : SELF_SETS_UP);
}

/* Reading is everybody's. */
SEC("lsm/file_open")
int BPF_PROG(self_open, struct file *file, int ret)
{
	struct dentry *dentry;

	if (ret || !(file->f_mode & FMODE_WRITE))
		return ret;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	if (self_is_switch(dentry))
		return self_caller_is() ? 0 : self_deny(EACCES);
	/* Another than the one it was opened by, in front of which a filesystem is stacked. */
	if (BPF_CORE_READ(dentry, d_inode) != file->f_inode)
		dentry = alias_of(file->f_inode);
	return dentry ? self_name(dentry, SELF_CHANGES) : 0;
}

/* Whoever holds a lock of the agent's, for which reading is enough, keeps it from starting; a lease lets it wait. */
SEC("lsm/file_lock")
int BPF_PROG(self_lock, struct file *file, unsigned int cmd, int ret)
{
	return ret ? ret : self_name(BPF_CORE_READ(file, f_path.dentry), SELF_CHANGES);
}

/* To move a mount the old way names it by a path that is not read yet: nobody may, where the host looks. */
SEC("lsm/sb_mount")
int BPF_PROG(self_mount, const char *dev_name, struct path *path, const char *type, unsigned long flags, void *data,
	     int ret)
{
	/* The kernel's order: what is bound and given another propagation is bound first. */
	if (ret || flags & MS_REMOUNT || (flags & MS_PROPAGATION && !(flags & MS_BIND)))
		return ret;
	if (flags & MS_MOVE && self_shows(BPF_CORE_READ(path, mnt)) && !self_caller_is() &&
	    !self_is_launcher(bpf_get_current_task_btf(), self_get()))
		return self_deny(EACCES);
	return self_over(path);
}

SEC("lsm/move_mount")
int BPF_PROG(self_move, struct path *from, struct path *to, int ret)
{
	struct vfsmount *mnt = BPF_CORE_READ(from, mnt);
	struct mount *mount = mount_of(mnt);

	if (ret)
		return ret;
	/* One that was made just now is in no namespace yet. */
	if (BPF_CORE_READ(from, dentry) == BPF_CORE_READ(mnt, mnt_root) && self_mounts_of(mount) &&
	    self_on_way(mount) && self_is_way(self_number(mount)) && !self_caller_is())
		return self_deny(EACCES);
	return self_over(to);
}

/* Where it is taken away from a parent that spreads, it goes from the host too. Process 1 ends the machine. */
SEC("lsm/sb_umount")
int BPF_PROG(self_umount, struct vfsmount *mnt, int flags, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mount *mount = mount_of(mnt);
	bool taken = false;

	if (ret)
		return ret;
	if (self_on_way(mount))
		taken = self_spreads(mount) || self_is_way(self_number(mount));
	if (!taken && flags & MNT_DETACH)
		taken = self_carries(mount);
	if (!taken || self_is(task) || self_is_launcher(task, self_get()))
		return 0;
	return self_deny(EACCES);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(self_pivot, struct path *old, struct path *new, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (ret || !self_shows(BPF_CORE_READ(new, mnt)) || self_is_launcher(task, self_get()))
		return ret;
	return self_deny(EACCES);
}
