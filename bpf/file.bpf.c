//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file. Each hook says what is touched; judge decides.

static __always_inline struct inode *inode_of(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_inode);
}

/* One object that is named by a mount and a dentry. */
static __always_inline int file_one(struct vfsmount *mnt, struct dentry *dentry, u32 operation, u32 hook, bool read)
{
	struct scratch *s;
	int deny;

	if (!concerns(CLASS_FILE, false))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_FILE) ? -EACCES : 0;
	begin(s, CLASS_FILE, operation, hook);
	object_set(&s->object[0], mnt, dentry, inode_of(dentry));
	attributes_set(&s->object[0], read);
	deny = judge_path(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
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
	l = deny ? 0 : bpf_task_storage_get(&labels, bpf_get_current_task_btf(), 0, 0);
	if (l) {
		l->move_dentry[0] = (u64)old;
		l->move_mark[0] = s->object[1].protects;
		l->move_dentry[1] = (u64) new;
		l->move_mark[1] = s->object[0].protects;
	}
	scratch_give(s);
	return deny ? -EACCES : 0;
}

/* Opening a file that backs one of a stacked filesystem: what the caller named was judged, and the file below counts
 * by what its inode is known by. A stack that any user can make, in a user namespace, would show a blocked directory
 * under other names: there the file below is judged by the host's name as well. */
static __always_inline int file_below(struct file *file, u32 class, bool read)
{
	struct inode *inode = file->f_inode;
	struct mark_key key;
	struct scratch *s;
	struct object *o;
	bool user;
	int deny;

	if (!concerns(class, false))
		return 0;
	s = scratch_take();
	if (!s)
		return fails_closed(class) ? -EACCES : 0;
	begin(s, class, class == CLASS_FILE ? OP_OPEN : OP_EXEC, HOOK_FILE_OPEN);
	o = &s->object[0];
	mapped_set(o, file);
	user = stacked_by_user((struct dentry *)o->dentry);
	mark_key_of(inode, &key);
	if (!user && !bpf_map_lookup_elem(&marks, &key)) {
		scratch_give(s);
		return 0;
	}
	if (user)
		object_set(o, 0, alias_of(inode), inode);
	o->inode = (u64)inode;
	attributes_set(o, read);
	if (user)
		o->status = PATH_BELOW;
	else
		s->lenient = LENIENT_NAME;
	deny = judge_start(s);
	scratch_give(s);
	return deny ? -EACCES : 0;
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

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	struct image_header *h;
	u32 mode = file->f_mode;
	void *image;
	bool runs;
	int deny;

	if (ret)
		return ret;
	/* Opening in order to run belongs to class process. */
	runs = file->f_flags & FMODE_EXEC_FLAG;
	if (mode & FMODE_NOACCOUNT)
		return file_below(file, runs ? CLASS_PROCESS : CLASS_FILE, !(mode & FMODE_WRITE));
	if (runs)
		return 0;
	image = host_image();
	h = rules_in(image, CLASS_FILE);
	if (!h)
		return 0;
	deny = file_cleared(file, h) ? 0 : file_opened(file);
	/* It is not judged again when it is read: its opener may give up rights meanwhile. */
	if (!deny)
		held_settle(file, mode & (FMODE_READ | FMODE_WRITE), publication(image));
	return deny;
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
	return ret ? ret : file_one(LOOSE(file)->f_path.mnt, LOOSE(file)->f_path.dentry, OP_TRUNCATE, HOOK_FILE_TRUNCATE, false);
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

SEC("lsm/path_chown")
int BPF_PROG(path_chown, struct path *path, u64 uid, u64 gid, int ret)
{
	return ret ? ret : file_one(LOOSE(path)->mnt, LOOSE(path)->dentry, OP_CHOWN, HOOK_PATH_CHOWN, false);
}

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old, struct path *dir, struct dentry *new, int ret)
{
	return ret ? ret : file_two(LOOSE(dir)->mnt, old, new, OP_LINK, HOOK_PATH_LINK);
}

SEC("lsm/path_rename")
int BPF_PROG(path_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new,
	     unsigned int flags, int ret)
{
	return ret ? ret : file_two(LOOSE(old_dir)->mnt, old, new, OP_RENAME, HOOK_PATH_RENAME);
}
