//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file: extended attributes, file capabilities and access control lists among them, and what inode_setattr is
// asked. These hooks are not told the mount, which system calls name just before, when they ask whether it can be
// written to.

static __always_inline void write_begins(struct vfsmount *mnt)
{
	struct label *l;

	if (!concerns(CLASS_FILE, false))
		return;
	l = TASK_GET(labels, current_task(), BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (l)
		l->write_mount = (u64)mnt;
	else
		count(COUNT_LABEL_MEMORY);
}

/* A mount of an earlier change must not be taken for that of what a stacked filesystem does by itself. */
static __always_inline void write_ends(void)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	if (l)
		l->write_mount = 0;
}

SEC("fentry/mnt_want_write")
int BPF_PROG(write_begins_on, struct vfsmount *mnt)
{
	write_begins(mnt);
	return 0;
}

SEC("fentry/mnt_want_write_file")
int BPF_PROG(write_begins_to, struct file *file)
{
	write_begins(file->f_path.mnt);
	return 0;
}

SEC("fentry/mnt_drop_write")
int BPF_PROG(write_ends_on, struct vfsmount *mnt)
{
	write_ends();
	return 0;
}

SEC("fentry/mnt_drop_write_file")
int BPF_PROG(write_ends_to, struct file *file)
{
	write_ends();
	return 0;
}

/* What a stacked filesystem keeps in the one below it has the host's name. */
static __always_inline int noted_change(struct dentry *dentry, u32 operation, u32 hook)
{
	struct vfsmount *mnt;
	struct label *l;

	if (!concerns(CLASS_FILE, false))
		return 0;
	l = TASK_GET(labels, current_task(), 0);
	if (!l)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	mnt = (struct vfsmount *)l->write_mount;
#ifdef OLDER_KERNEL
	if (!mnt || BPF_CORE_READ(mnt, mnt_sb) != BPF_CORE_READ(dentry, d_sb))
		return 0;
	return file_one(mnt, dentry, operation, hook, false);
#else
	if (!mnt)
		return 0;
	return judge_change(changes_below(dentry, false) ? 0 : mnt, dentry, 0, operation, hook);
#endif
}

#ifdef OLDER_KERNEL
SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, struct dentry *dentry, const char *name, const void *value, unsigned long size, int flags,
	     int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_SETXATTR);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_REMOVEXATTR);
}
#else
SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *mapping, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_SETXATTR);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *mapping, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_REMOVEXATTR);
}

#endif

/* From 6.2; before, access control lists come as extended attributes. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *mapping, struct dentry *dentry, const char *name, void *acl, int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_SET_ACL);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *mapping, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : noted_change(dentry, OP_SETXATTR, HOOK_INODE_REMOVE_ACL);
}

#ifdef OLDER_KERNEL
/* utimes(2) and its kin, and a change of owner: 5.10 lets no program stand at path_chown, which is given structures by
 * value. */
static __always_inline int attributes_change(struct dentry *dentry, struct iattr *attributes)
{
	u32 what = attributes->ia_valid;

	if (what & (ATTR_UID | ATTR_GID))
		return noted_change(dentry, OP_CHOWN, HOOK_INODE_SETATTR);
	if (!(what & (ATTR_ATIME | ATTR_MTIME)) || what & (ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_SIZE))
		return 0;
	return noted_change(dentry, OP_UTIMES, HOOK_INODE_SETATTR);
}
#else
/* chmod, chown, truncate and utimes; a file's rights are also taken from it when somebody writes to it. */
static __always_inline u32 attributes_operation(u32 what)
{
	if (what & (ATTR_UID | ATTR_GID))
		return OP_CHOWN;
	if (what & ATTR_SIZE)
		return OP_TRUNCATE;
	if (what & ATTR_MODE)
		return OP_CHMOD;
	return what & (ATTR_ATIME | ATTR_MTIME) ? OP_UTIMES : 0;
}

static __always_inline int attributes_change(struct dentry *dentry, struct iattr *attributes)
{
	u32 operation = attributes_operation(attributes->ia_valid);

	if (!operation)
		return 0;
	/* The others have hooks of their own, which are told the mount. */
	if (operation != OP_UTIMES && !changes_below(dentry, false))
		return 0;
	return noted_change(dentry, operation, HOOK_INODE_SETATTR);
}
#endif

/* From 6.9. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, void *mapping, struct dentry *dentry, struct iattr *attributes, int ret)
{
	return ret ? ret : attributes_change(dentry, attributes);
}

/* Before, the hook was not told the mapping of users. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_unmapped, struct dentry *dentry, struct iattr *attributes, int ret)
{
	return ret ? ret : attributes_change(dentry, attributes);
}
