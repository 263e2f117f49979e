//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Hooks that keep marks. A new name counts after the operation has succeeded, never before the kernel's own
// permission checks.

/* A rename or link is over: after a success the file that has the protected name now is marked. A stacked
 * filesystem renames below first, other dentries: that is not the operation that was noted. */
static __always_inline void moved(struct label *l, u32 which, struct dentry *dentry, bool success)
{
	if (!l->move_mark[which] || l->move_dentry[which] != (u64)dentry)
		return;
	if (success)
		mark_add((u64)BPF_CORE_READ(dentry, d_inode), l->move_mark[which]);
	l->move_mark[which] = 0;
}

/* Other names lead through it. */
static __always_inline bool leads_on(struct dentry *dentry)
{
	u16 kind = BPF_CORE_READ(dentry, d_inode, i_mode) & S_IFMT;

	return kind == S_IFDIR || kind == S_IFLNK;
}

SEC("fexit/vfs_rename")
int BPF_PROG(mark_renamed, struct renamedata *rd, int ret)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	if (!ret && (leads_on(BPF_CORE_READ(rd, old_dentry)) ||
		     (BPF_CORE_READ(rd, flags) & RENAME_EXCHANGE && leads_on(BPF_CORE_READ(rd, new_dentry)))))
		names_moved();
	if (!l)
		return 0;
	moved(l, 0, BPF_CORE_READ(rd, old_dentry), !ret);
	moved(l, 1, BPF_CORE_READ(rd, new_dentry), !ret && BPF_CORE_READ(rd, flags) & RENAME_EXCHANGE);
	return 0;
}

static __always_inline int linked(struct dentry *old, int ret)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	if (!l)
		return 0;
	moved(l, 0, old, !ret);
	return 0;
}

#ifdef OLDER_KERNEL
SEC("fexit/vfs_link")
int BPF_PROG(mark_linked, struct dentry *old, struct inode *dir, struct dentry *new, void *delegated, int ret)
{
	return linked(old, ret);
}
#else
SEC("fexit/vfs_link")
int BPF_PROG(mark_linked, struct dentry *old, void *mapping, struct inode *dir, struct dentry *new, void *delegated,
	     int ret)
{
	return linked(old, ret);
}
#endif

/* A mark ends with its inode: not with its eviction, but when no name is left. */
SEC("lsm/inode_free_security")
void BPF_PROG(mark_freed, struct inode *inode)
{
	struct mark_key key;

	clearance_forget(inode);
	if (BPF_CORE_READ(inode, i_nlink))
		return;
	mark_key_of(inode, &key);
	bpf_map_delete_elem(&marks, &key);
}

#ifdef OLDER_KERNEL
/* One of several names goes: a clearance under it would be one for the name that is left. */
SEC("lsm/inode_unlink")
int BPF_PROG(clear_unlinked, struct inode *dir, struct dentry *dentry, int ret)
{
	struct inode *inode = READ(dentry, d_inode);

	if (!ret && READ(inode, i_nlink) > 1)
		clearances_end();
	return ret;
}
#endif

/* What lies under the root of a mount: next, and below everything that is mounted at the same place. */
static __always_inline void found_under(struct file *file, struct found_inode *found)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry), *on = 0;
	struct mount *mount = mount_of(BPF_CORE_READ(file, f_path.mnt)), *parent;
	struct inode *inode;

#pragma unroll
	for (int i = 0; i < 8; i++) {
		parent = BPF_CORE_READ(mount, mnt_parent);
		if (parent == mount || dentry != BPF_CORE_READ(mount, mnt.mnt_root))
			break;
		on = BPF_CORE_READ(mount, mnt_mountpoint);
		inode = BPF_CORE_READ(on, d_inode);
		found->under[!!i] = BPF_CORE_READ(inode, i_ino);
		found->under_device[!!i] = BPF_CORE_READ(inode, i_sb, s_dev);
		found->under_generation[!!i] = place_generation(inode);
		dentry = on;
		mount = parent;
	}
}

/* Tells the device, number and generation of the files that the agent holds open. */
SEC("iter/task_file")
int mark_inodes(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct found_inode found = {};
	struct mount *mount;
	struct mark_key key;
	struct settings *c;
	u32 zero = 0;

	if (!task || !file)
		return 0;
	c = bpf_map_lookup_elem(&config, &zero);
	if (!c || BPF_CORE_READ(task, tgid) != c->agent_tgid)
		return 0;
	mark_key_of(BPF_CORE_READ(file, f_inode), &key);
	found.fd = ctx->fd;
	found.device = key.device;
	found.inode = key.inode;
	found.generation = key.generation;
	found.place_generation = place_generation(BPF_CORE_READ(file, f_inode));
	mount = mount_of(BPF_CORE_READ(file, f_path.mnt));
	found.mounts = namespace_number(BPF_CORE_READ(mount, mnt_ns));
	found_under(file, &found);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}
