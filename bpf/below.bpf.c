//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file: what a stacked filesystem changes in the filesystem below it, its upper layer. The caller named what lies in
// front, and was judged by that name; what is changed below has the host's name. Only hooks of inodes are asked there.
// On 5.10 that is not judged.

#ifndef OLDER_KERNEL

/* The caller's call has noted the mount that it is about, and a stack notes its own, which is in no namespace. A stack
 * that copies a file because it is opened notes none; no call makes or removes a name without noting one. */
static __always_inline bool changes_below(struct dentry *dentry, bool unnoted)
{
	struct label *l = TASK_GET(labels, current_task(), 0);
	struct vfsmount *mnt = l ? (struct vfsmount *)l->write_mount : 0;

	if (!mnt)
		return unnoted;
	return READ(mnt, mnt_sb) != READ(dentry, d_sb) || in_no_namespace(mnt);
}

/* A stack acts with the rights of who mounted it. Of root's no allow-list has to know the name below. */
static __always_inline bool acts_for_user(void)
{
	struct cred *rights = (struct cred *)TRUSTED(LOOSE(current_task()), cred);

	return init_user_ns_addr && (u64)READ(rights, user_ns) != init_user_ns_addr;
}

static __always_inline void change_set(struct object *o, struct vfsmount *mnt, struct dentry *dentry)
{
	object_set(o, mnt, dentry, inode_of(dentry));
	attributes_set(o, false);
	if (!mnt)
		o->status = PATH_BELOW;
}

/* A change of one object or two by their names on a mount; without one, by the host's. */
static __always_inline int judge_change(struct vfsmount *mnt, struct dentry *old, struct dentry *new, u32 operation,
					u32 hook)
{
	struct scratch *s;
	int deny;

	if (!concerns(CLASS_FILE, false))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, operation, hook);
	if (!mnt && !acts_for_user())
		s->lenient = LENIENT_ALLOW_LIST;
	change_set(&s->object[0], mnt, old);
	if (new)
		change_set(&s->object[1], mnt, new);
	deny = judge_path(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

static __always_inline int below_one(struct dentry *dentry, u32 operation, u32 hook)
{
	return changes_below(dentry, true) ? judge_change(0, dentry, 0, operation, hook) : 0;
}

static __always_inline int below_two(struct dentry *old, struct dentry *new, u32 operation, u32 hook)
{
	return changes_below(old, true) ? judge_change(0, old, new, operation, hook) : 0;
}

SEC("lsm/inode_create")
int BPF_PROG(below_create, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ? ret : below_one(dentry, OP_CREATE, HOOK_INODE_CREATE);
}

SEC("lsm/inode_mknod")
int BPF_PROG(below_mknod, struct inode *dir, struct dentry *dentry, u16 mode, u32 dev, int ret)
{
	return ret ? ret : below_one(dentry, OP_MKNOD, HOOK_INODE_MKNOD);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(below_mkdir, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ? ret : below_one(dentry, OP_MKDIR, HOOK_INODE_MKDIR);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(below_rmdir, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : below_one(dentry, OP_RMDIR, HOOK_INODE_RMDIR);
}

SEC("lsm/inode_symlink")
int BPF_PROG(below_symlink, struct inode *dir, struct dentry *dentry, const char *target, int ret)
{
	return ret ? ret : below_one(dentry, OP_SYMLINK, HOOK_INODE_SYMLINK);
}

/* One of several names goes: a clearance under it would be one for the name that is left. */
SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *dentry, int ret)
{
	struct inode *inode = READ(dentry, d_inode);

	if (!ret)
		ret = below_one(dentry, OP_UNLINK, HOOK_INODE_UNLINK);
	if (!ret && READ(inode, i_nlink) > 1)
		clearances_end();
	return ret;
}

SEC("lsm/inode_link")
int BPF_PROG(below_link, struct dentry *old, struct inode *dir, struct dentry *new, int ret)
{
	return ret ? ret : below_two(old, new, OP_LINK, HOOK_INODE_LINK);
}

SEC("lsm/inode_rename")
int BPF_PROG(below_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new,
	     int ret)
{
	return ret ? ret : below_two(old, new, OP_RENAME, HOOK_INODE_RENAME);
}

#endif
