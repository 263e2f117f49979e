//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file, through descriptors. Whoever reads or writes through one that it did not open itself under the
// published ruleset is judged like one who opens it: the descriptor is older than the ruleset, was inherited, or
// came by a socket.

static __always_inline u32 held_operation(struct file *file, u32 access, u32 hook)
{
	if (hook != HOOK_FILE_PERMISSION)
		return hook == HOOK_MMAP_FILE ? OP_MAP : OP_RECEIVE;
	if ((file->f_inode->i_mode & S_IFMT) == S_IFDIR)
		return OP_LIST;
	return access & FMODE_WRITE ? OP_WRITE : OP_READ;
}

static __always_inline int held_use(struct file *file, u32 access, u32 hook)
{
	void *image = host_image();
	u32 number = publication(image);
	int deny;

	/* Nearly always: no image has to be read for it. */
	if (held_settled(file, access, number))
		return 0;
	if (!concerns(CLASS_FILE, false))
		return 0;
	deny = file_named(LOOSE(file)->f_path.mnt, LOOSE(file)->f_path.dentry, held_operation(file, access, hook), hook,
			  !(access & FMODE_WRITE), held_is_stream(file->f_inode) ? LENIENT_ALLOW_LIST : LENIENT_NOT);
	if (!deny)
		held_settle(file, access, number);
	return deny;
}

/* Before every read and write: read(2) and its kin, sendfile, splice, copy_file_range, fallocate, getdents,
 * io_uring. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	u32 access = FMODE_READ + (u32)mask / MAY_WRITE % 2; /* or FMODE_WRITE, without a branch */

	if (ret || !held_is_object(file))
		return ret;
	return held_use(file, access, HOOK_FILE_PERMISSION);
}

/* A descriptor arrives in a message on a socket, or is taken out of another process. */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file, int ret)
{
	if (ret || !held_is_object(file))
		return ret;
	return held_use(file, file->f_mode & (FMODE_READ | FMODE_WRITE), HOOK_FILE_RECEIVE);
}
