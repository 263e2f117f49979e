//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file. Each hook says what is touched; judge decides.

static __always_inline struct inode *inode_of(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_inode);
}

/* One object that is named by a mount and a dentry. */
static __always_inline int file_named(struct vfsmount *mnt, struct dentry *dentry, u32 operation, u32 hook, bool read,
				      u32 lenient)
{
	struct scratch *s;
	int deny;

	if (!concerns(CLASS_FILE, false))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, operation, hook);
	s->lenient = lenient;
	object_set(&s->object[0], mnt, dentry, inode_of(dentry));
	attributes_set(&s->object[0], read);
	deny = judge_path(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

static __always_inline int file_one(struct vfsmount *mnt, struct dentry *dentry, u32 operation, u32 hook, bool read)
{
	return file_named(mnt, dentry, operation, hook, read, LENIENT_NOT);
}

/* Two names, of a rename or a link. What they protect is remembered until the operation has succeeded. */
static __always_inline int file_two(struct vfsmount *mnt, struct dentry *old, struct dentry *new, u32 operation,
				    u32 hook)
{
	struct scratch *s;
	struct label *l;
	int deny;

	if (!concerns(CLASS_FILE, true))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, operation, hook);
	object_set(&s->object[0], mnt, old, inode_of(old));
	object_set(&s->object[1], mnt, new, inode_of(new));
	attributes_set(&s->object[0], false);
	attributes_set(&s->object[1], false);
	deny = judge_path(s);
	l = deny ? 0 : TASK_GET(labels, current_task(), 0);
	if (l) {
		l->move_dentry[0] = (u64)old;
		l->move_mark[0] = s->object[1].protects;
		l->move_dentry[1] = (u64) new;
		l->move_mark[1] = s->object[0].protects;
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}

/* The file in front of a marked one is known by the same paths: it is mapped (ld.so) without a word of the one below. */
static __always_inline void file_front(struct inode *front, struct mark *m)
{
	if (!front || (READ(front, i_mode) & S_IFMT) != S_IFREG)
		return;
	for (u32 i = 0; i < OBJECT_MARKS; i++)
		mark_add((u64)front, m->paths[i]);
}

/* By the host's name of the file below. Where root mounted the stack, no allow-list has to know that name, as in a
 * mount namespace of root's. */
static __always_inline int file_below_home(struct scratch *s, struct file *file, u32 class, u32 operation, bool read)
{
	struct inode *inode = file->f_inode;
	struct object *o = &s->object[0];
	bool user;

	begin(s, class, operation, HOOK_FILE_OPEN);
	mapped_set(o, file);
	user = file->f_mode & FMODE_NOACCOUNT ? stacked_by_user((struct dentry *)o->dentry) : opened_by_user(file);
	if (!user)
		s->lenient = LENIENT_ALLOW_LIST;
	object_set(o, 0, alias_of(inode), inode);
	attributes_set(o, read);
	o->status = PATH_BELOW;
	return judge_start(s);
}

/* By what its inode is known by. */
static __always_inline int file_below_mark(struct scratch *s, struct file *file, u32 class, bool read)
{
	struct object *o = &s->object[0];

	begin(s, class, class == CLASS_FILE ? OP_OPEN : OP_EXEC, HOOK_FILE_OPEN);
	mapped_set(o, file);
	o->inode = (u64)file->f_inode;
	attributes_set(o, read);
	s->lenient = LENIENT_NAME;
	return judge_start(s);
}

/* Opening a file that backs one of a stacked filesystem: what the caller named was judged, and the file below counts
 * by what its inode is known by and by the host's name, or the stack would show a blocked directory under other names.
 * Without a home it has no name that counts. */
static __always_inline int file_below(struct file *file, u32 class, bool read)
{
	bool list = (file->f_inode->i_mode & S_IFMT) == S_IFDIR;
	u32 operation = class == CLASS_PROCESS ? OP_EXEC : list ? OP_LIST : OP_OPEN;
	struct mark_key key;
	struct scratch *s;
	struct mark *m;
	int deny;

	if (!concerns(CLASS_FILE, false) && !concerns(CLASS_PROCESS, false))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(class) ? -EACCES : 0;
	mark_key_of(file->f_inode, &key);
	m = bpf_map_lookup_elem(&marks, &key);
	if (m) {
		mapped_set(&s->object[0], file);
		file_front((struct inode *)s->object[0].inode, m);
	}
	deny = file_below_home(s, file, class, operation, read);
	if (!deny && m && s->object[0].status != PATH_OK)
		deny = file_below_mark(s, file, class, read);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

static __always_inline bool in_no_namespace(struct vfsmount *mnt)
{
	s64 namespace = (s64)READ(mount_of(mnt), mnt_ns);

	return namespace < 0 && namespace >= -4095;
}

/* A stacked filesystem lists the directories below it, and copies files, through mounts of its own that are in no
 * namespace. What else is mounted so is of the kernel's filesystems that nobody can mount. */
static __always_inline bool file_lies_below(struct file *file)
{
	return in_no_namespace(file->f_path.mnt) && !(file->f_inode->i_sb->s_flags & SB_NOUSER);
}

static __always_inline int file_opened(struct file *file)
{
	bool list = (file->f_inode->i_mode & S_IFMT) == S_IFDIR;
	struct scratch *s = scratch_take();
	int deny;

	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, list ? OP_LIST : OP_OPEN, HOOK_FILE_OPEN);
	s->epoch = clearing_epoch();
	object_set(&s->object[0], file->f_path.mnt, file->f_path.dentry, file->f_inode);
	attributes_set(&s->object[0], !(file->f_mode & FMODE_WRITE));
	deny = judge_path(s);
	if (!deny && s->object[0].unsaid && (list || file->f_inode->i_nlink == 1))
		clear(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
}

/* Whether a clearance answers for the caller: nobody is told of what is opened, and no allow-list is the caller's. */
static __always_inline bool file_cleared(struct file *file, struct image_header *h)
{
	return !(class_flags(h, CLASS_FILE) & CLASS_VISIBLE) && is_cleared(file, h) && !has_posture(h, CLASS_FILE);
}

/* Opening under rules. Answers FILE_BELOW when the file is to be judged as one below a stack. */
#define FILE_BELOW 1

static __always_inline int file_ruled(struct file *file, void *image, struct image_header *h)
{
	int deny = 0;

	if (!file_cleared(file, h)) {
		if (file_lies_below(file))
			return FILE_BELOW;
		deny = file_opened(file);
	}
	/* It is not judged again when it is read: its opener may give up rights meanwhile. */
	if (!deny)
		held_settle(file, file->f_mode & (FMODE_READ | FMODE_WRITE), publication(image));
	return deny;
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	struct image_header *h;
	void *image;
	bool runs;
	int deny;

	if (ret)
		return ret;
	/* Opening in order to run belongs to class process. */
	runs = file->f_flags & FMODE_EXEC_FLAG;
	if (!(file->f_mode & FMODE_NOACCOUNT)) {
		if (runs)
			return 0;
		image = host_image();
		h = rules_in(image, CLASS_FILE);
		if (!h)
			return 0;
		deny = file_ruled(file, image, h);
		if (deny != FILE_BELOW)
			return deny;
	}
	return file_below(file, runs ? CLASS_PROCESS : CLASS_FILE, !(file->f_mode & FMODE_WRITE));
}

/* ftruncate and truncate on kernels without file_truncate; truncate alone on the others. */
SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, struct path *path, int ret)
{
	return ret ? ret : file_one(LOOSE(path)->mnt, LOOSE(path)->dentry, OP_TRUNCATE, HOOK_PATH_TRUNCATE, false);
}

SEC("lsm/file_truncate")
int BPF_PROG(file_truncate, struct file *file, int ret)
{
	return ret ? ret :
		     file_one(LOOSE(file)->f_path.mnt, LOOSE(file)->f_path.dentry, OP_TRUNCATE, HOOK_FILE_TRUNCATE,
			      false);
}

SEC("lsm/path_mknod")
int BPF_PROG(path_mknod, struct path *dir, struct dentry *dentry, u16 mode, u32 dev, int ret)
{
	u32 kind = mode & S_IFMT;
	u32 operation = !kind || kind == S_IFREG ? OP_CREATE : OP_MKNOD;

	return ret ? ret : file_one(LOOSE(dir)->mnt, dentry, operation, HOOK_PATH_MKNOD, false);
}

SEC("lsm/path_mkdir")
int BPF_PROG(path_mkdir, struct path *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ? ret : file_one(LOOSE(dir)->mnt, dentry, OP_MKDIR, HOOK_PATH_MKDIR, false);
}

SEC("lsm/path_rmdir")
int BPF_PROG(path_rmdir, struct path *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : file_one(LOOSE(dir)->mnt, dentry, OP_RMDIR, HOOK_PATH_RMDIR, false);
}

SEC("lsm/path_unlink")
int BPF_PROG(path_unlink, struct path *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : file_one(LOOSE(dir)->mnt, dentry, OP_UNLINK, HOOK_PATH_UNLINK, false);
}

SEC("lsm/path_symlink")
int BPF_PROG(path_symlink, struct path *dir, struct dentry *dentry, const char *target, int ret)
{
	if (!ret)
		ret = file_one(LOOSE(dir)->mnt, dentry, OP_SYMLINK, HOOK_PATH_SYMLINK, false);
	if (!ret)
		names_moved();
	return ret;
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod, struct path *path, u16 mode, int ret)
{
	return ret ? ret : file_one(LOOSE(path)->mnt, LOOSE(path)->dentry, OP_CHMOD, HOOK_PATH_CHMOD, false);
}

#ifndef OLDER_KERNEL
SEC("lsm/path_chown")
int BPF_PROG(path_chown, struct path *path, u64 uid, u64 gid, int ret)
{
	return ret ? ret : file_one(LOOSE(path)->mnt, LOOSE(path)->dentry, OP_CHOWN, HOOK_PATH_CHOWN, false);
}
#endif

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old, struct path *dir, struct dentry *new, int ret)
{
	return ret ? ret : file_two(LOOSE(dir)->mnt, old, new, OP_LINK, HOOK_PATH_LINK);
}

#ifdef OLDER_KERNEL
SEC("lsm/path_rename")
int BPF_PROG(path_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new, int ret)
{
	return ret ? ret : file_two(LOOSE(old_dir)->mnt, old, new, OP_RENAME, HOOK_PATH_RENAME);
}
#else
SEC("lsm/path_rename")
int BPF_PROG(path_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new,
	     unsigned int flags, int ret)
{
	return ret ? ret : file_two(LOOSE(old_dir)->mnt, old, new, OP_RENAME, HOOK_PATH_RENAME);
}
#endif
