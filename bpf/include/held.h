// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Held descriptors: open files that were not opened by this program under this image. A read or a write through
// one is judged; through any other it need not be, because opening it was.
#ifndef MUSTER_HELD_H
#define MUSTER_HELD_H

#include "judge.h"

/* Which of all images was published: each is a map of its own, and the kernel does not give a map's number again. The
 * image's id will not do, since it names the contents, which may come back. */
static __always_inline u32 publication(void *image)
{
	return image ? ((struct bpf_map *)image)->id : 0;
}

/* The name by which a file that backs another one of a stacked filesystem was opened. */
static __always_inline void mapped_set(struct object *o, struct file *file)
{
	struct path path = {};

	path.mnt = BPF_CORE_READ(file, f_path.mnt);
	path.dentry = BPF_CORE_READ(file, f_path.dentry);
	/* The flag that says so has not the same number everywhere. Other files that are not counted are the kernel's
	 * own, of filesystems that nobody can mount. */
	if (bpf_core_type_exists(struct backing_file) && BPF_CORE_READ(file, f_mode) & FMODE_NOACCOUNT &&
	    !(BPF_CORE_READ(file, f_inode, i_sb, s_flags) & SB_NOUSER)) {
		struct backing_file *backing =
			(struct backing_file *)((void *)file - bpf_core_field_offset(struct backing_file, file));

		path.mnt = BPF_CORE_READ(backing, user_path.mnt);
		path.dentry = BPF_CORE_READ(backing, user_path.dentry);
	}
	object_set(o, path.mnt, path.dentry, BPF_CORE_READ(path.dentry, d_inode));
	attributes_set(o, false);
}

/* Whether the filesystem was mounted in a user namespace, as any user can do. */
static __always_inline bool stacked_by_user(struct dentry *dentry)
{
	return init_user_ns_addr && (u64)BPF_CORE_READ(dentry, d_sb, s_user_ns) != init_user_ns_addr;
}

/* The same of what a stacked filesystem opens for itself: it does so with the rights of who mounted it. */
static __always_inline bool opened_by_user(struct file *file)
{
	struct cred *opener = (struct cred *)file->f_cred;

	return init_user_ns_addr && (u64)READ(opener, user_ns) != init_user_ns_addr;
}

/* One name of an open file. */
static __always_inline struct dentry *alias_of(struct inode *inode)
{
	struct hlist_node *node = BPF_CORE_READ(inode, i_dentry.first);

	if (!node)
		return 0;
	if (bpf_core_field_exists(struct dentry, d_u.d_alias))
		return (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
	return (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
}

/* The kinds of files are numbers in the uppermost four bits of a mode. */
#define KIND_UNIT 0x1000

/* Whether reading and writing through it is an operation of class file. Pipes without a name, sockets and what else
 * has none are not. A file opened in order to be run belongs to class process, and one that backs a stacked
 * filesystem is known by the name in front. */
static __always_inline bool held_is_object(struct file *file)
{
	struct inode *inode = file->f_inode;

	/* One test: each branch here would double what the verifier follows behind it. */
	if (!(1 << (inode->i_mode / KIND_UNIT) &
	      (1 << S_IFREG / KIND_UNIT | 1 << S_IFDIR / KIND_UNIT | 1 << S_IFBLK / KIND_UNIT |
	       1 << S_IFCHR / KIND_UNIT | 1 << S_IFIFO / KIND_UNIT)))
		return false;
	if (file->f_mode & (FMODE_NOACCOUNT | FMODE_PATH) || file->f_flags & FMODE_EXEC_FLAG)
		return false;
	return !(LOOSE(inode)->i_sb->s_flags & SB_NOUSER);
}

/* A terminal, another character device or a named pipe hands bytes to whoever holds it, and nearly every program
 * inherits some: no allow-list has to name them. */
static __always_inline bool held_is_stream(struct inode *inode)
{
	u32 kind = inode->i_mode & S_IFMT;

	return kind == S_IFCHR || kind == S_IFIFO;
}

/* Whether this thread's program opened the file under the image that is published now. An exec makes new credentials,
 * and a file keeps those of its opener: they cannot be met again while it is open. What a program has opened since it
 * was started was judged by an image no older than its start. */
static __always_inline bool held_own(struct label *l, struct file *file, u32 image)
{
	return l->started == image && LOOSE(file)->f_cred == TRUSTED(LOOSE(current_task()), real_cred);
}

/* Whether the process was judged for the file under this image. */
static __always_inline bool held_known(struct label *l, struct file *file, u32 access, u32 image)
{
	u64 dentry = (u64)LOOSE(file)->f_path.dentry;

	for (u32 i = 0; i < USED_DESCRIPTORS; i++)
		if (l->used_file[i] == (u64)file && l->used_dentry[i] == dentry && l->used_image[i] == image &&
		    (l->used_access[i] & access) == access)
			return true;
	return false;
}

/* The process may use the file so. */
static __always_inline void held_note(struct label *l, struct file *file, u32 access, u32 image)
{
	u64 at = FETCH_ADD(&l->used_next, 1);

	BOUND(at, USED_DESCRIPTORS - 1);
	l->used_file[at] = 0;
	asm volatile("" ::: "memory");
	l->used_dentry[at] = (u64)file->f_path.dentry;
	l->used_image[at] = image;
	l->used_access[at] = access;
	asm volatile("" ::: "memory");
	l->used_file[at] = (u64)file;
}

/* The label in which a process keeps that. */
static __always_inline struct label *held_label(void)
{
	return TASK_GET(labels, TRUSTED(current_task(), group_leader), 0);
}

/* Whether the caller need not be judged for it again. */
static __always_inline bool held_settled(struct file *file, u32 access, u32 image)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	if (l && held_own(l, file, image))
		return true;
	l = held_label();
	return l && held_known(l, file, access, image);
}

static __always_inline void held_settle(struct file *file, u32 access, u32 image)
{
	struct label *l = held_label();

	if (l)
		held_note(l, file, access, image);
}

#endif
