// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The one walker that every hook's paths come from: dentry to mnt_root, across mnt_mountpoint, up to the
// mount that is its own parent. A chroot of the process is not looked at. The names of the way are read
// without locks and are good only when rename_lock and mount_lock did not move meanwhile.
#ifndef MUSTER_WALK_H
#define MUSTER_WALK_H

#include "maps.h"
#include "image.h"

/* Any user can make the locks move, by renaming or by leaving lazily unmounted trees: enough attempts that
 * this denies nobody anything. An attempt that begins while a lock is held costs next to nothing. */
#define WALK_ATTEMPTS 512
#define WALK_STEPS 8192

/* Eight bytes at any address: clang takes a char array apart into single bytes. */
static __always_inline u64 load64(const void *p)
{
	u64 value;

	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(value) : "r"(p));
	return value;
}

struct walk {
	struct object *object;
	struct dentry *dentry;
	struct dentry *root;
	struct mount *mount;
};

static __always_inline u32 sequence_read(u64 address)
{
	u32 value = 0;

	if (address)
		bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((void *)mnt - bpf_core_field_offset(struct mount, mnt));
}

/* The namespace of a tree that open_tree(2) or fsmount(2) made is anonymous: it has the number 0. */
static __always_inline u64 namespace_number(struct mnt_namespace *ns)
{
	struct mnt_namespace___6_18 *later = (void *)ns;

	if (bpf_core_field_exists(ns->seq))
		return BPF_CORE_READ(ns, seq);
	if (bpf_core_field_exists(later->ns.ns_id))
		return BPF_CORE_READ(later, ns.ns_id);
	return 1;
}

/* The first mount namespace: that of the kernel's own first task. */
static __always_inline struct mnt_namespace *home_namespace(void)
{
	struct nsproxy *proxy = (struct nsproxy *)init_nsproxy_addr;

	return init_nsproxy_addr && init_user_ns_addr ? BPF_CORE_READ(proxy, mnt_ns) : 0;
}

/* Where addresses are hidden every namespace counts as the host's own. */
static __always_inline u32 tree_of(struct mnt_namespace *ns)
{
	struct mnt_namespace *home = home_namespace();

	if (!home || ns == home)
		return TREE_HOST;
	return (u64)BPF_CORE_READ(ns, user_ns) == init_user_ns_addr ? TREE_ROOT : TREE_USER;
}

static __always_inline u32 walk_top(struct object *o, struct mount *mount)
{
	struct mnt_namespace *ns = BPF_CORE_READ(mount, mnt_ns);

	/* The kernel mounts message queues and huge pages for itself, in no namespace. */
	if (!ns)
		return BPF_CORE_READ(mount, mnt.mnt_flags) & MNT_INTERNAL ? PATH_INTERNAL : PATH_DETACHED;
	if ((s64)ns < 0 && (s64)ns >= -4095)
		return PATH_INTERNAL;
	o->tree = tree_of(ns);
	return namespace_number(ns) ? PATH_OK : PATH_DETACHED;
}

static long walk_step(u32 index, struct walk *w)
{
	struct dentry *dentry = w->dentry;
	struct mount *mount = w->mount;
	struct dentry *parent;
	struct qstr name;
	u64 length, at;

	if (dentry == w->root) {
		struct mount *above = BPF_CORE_READ(mount, mnt_parent);

		if (above == mount) {
			w->object->status = walk_top(w->object, above);
			return 1;
		}
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		w->mount = above;
		w->root = BPF_CORE_READ(above, mnt.mnt_root);
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	/* A file of a mount of the kernel's own, or a handle that nobody has connected yet. */
	if (parent == dentry || !parent) {
		w->object->status = walk_top(w->object, mount) == PATH_INTERNAL ? PATH_INTERNAL : PATH_DETACHED;
		return 1;
	}
	if (bpf_core_read(&name, sizeof(name), &dentry->d_name)) {
		w->object->status = PATH_RACED;
		return 1;
	}
	length = name.len;
	at = w->object->start;
	if (length > 255 || at < length + 1) {
		w->object->status = PATH_LONG;
		return 1;
	}
	at -= length + 1;
	w->object->start = at;
	BOUND(at, PATH_END - 1);
	BOUND(length, 255);
	w->object->buffer[at] = '/';
	if (bpf_probe_read_kernel(&w->object->buffer[at + 1], length, name.name)) {
		w->object->status = PATH_RACED;
		return 1;
	}
	w->dentry = parent;
	return 0;
}

/* One attempt. Nothing is written behind PATH_END; the room there is for the verifier, which sees no sum. */
static __always_inline void walk_once(struct object *o, struct mount *mount)
{
	struct walk w = { .object = o, .dentry = (struct dentry *)o->dentry, .mount = mount };

	o->status = PATH_LONG;
	o->start = PATH_END;
	w.root = BPF_CORE_READ(mount, mnt.mnt_root);
	bpf_loop(WALK_STEPS, walk_step, &w, 0);
	if (o->status == PATH_OK && o->start == PATH_END) {
		o->start = PATH_END - 1;
		o->buffer[PATH_END - 1] = '/';
	}
	/* PATH_MAX counts the NUL. */
	if (o->status == PATH_OK && o->start == 0)
		o->status = PATH_LONG;
}

static long walk_attempt(u32 index, struct walk *w)
{
	u32 renames = sequence_read(rename_lock_addr);
	u32 mounts = sequence_read(mount_lock_addr);

	w->object->status = PATH_RACED;
	if ((renames | mounts) & 1)
		return 0;
	walk_once(w->object, mount_of((struct vfsmount *)w->object->mount));
	if (renames == sequence_read(rename_lock_addr) && mounts == sequence_read(mount_lock_addr))
		return 1;
	w->object->status = PATH_RACED;
	return 0;
}

/* Container runtimes and systemd open files of a procfs or sysfs that is mounted nowhere yet (fsopen, fsmount). All
 * the world has these below /proc and /sys, so that is what their files are called. */
static __always_inline void walk_unmounted(struct object *o)
{
	struct mount *mount = mount_of((struct vfsmount *)o->mount);
	struct super_block *sb = BPF_CORE_READ(mount, mnt.mnt_sb);
	unsigned long magic = BPF_CORE_READ(sb, s_magic);
	u64 at = o->start;

	if (magic != PROC_SUPER_MAGIC && magic != SYSFS_MAGIC)
		return;
	if (BPF_CORE_READ(mount, mnt_parent) != mount ||
	    BPF_CORE_READ(mount, mnt.mnt_root) != BPF_CORE_READ(sb, s_root))
		return;
	if (at < 6 || at > PATH_END)
		return;
	at -= magic == PROC_SUPER_MAGIC ? 5 : 4;
	o->start = at;
	BOUND(at, PATH_END - 1);
	o->buffer[at] = '/';
	o->buffer[at + 1] = magic == PROC_SUPER_MAGIC ? 'p' : 's';
	o->buffer[at + 2] = magic == PROC_SUPER_MAGIC ? 'r' : 'y';
	o->buffer[at + 3] = magic == PROC_SUPER_MAGIC ? 'o' : 's';
	if (magic == PROC_SUPER_MAGIC)
		o->buffer[at + 4] = 'c';
	o->status = PATH_OK;
	o->tree = TREE_HOST;
}

/* Builds the path of object->{mount, dentry} into object->buffer and sets object->status. */
__noinline int walk(struct object *o)
{
	struct walk w = { .object = o };

	if (!o)
		return 0;
	o->tree = TREE_HOST;
	o->home = 0;
	if (rename_lock_addr && mount_lock_addr) {
		bpf_loop(WALK_ATTEMPTS, walk_attempt, &w, 0);
	} else {
		count(COUNT_NO_SEQUENCE);
		walk_once(o, mount_of((struct vfsmount *)o->mount));
	}
	if (o->status == PATH_DETACHED)
		walk_unmounted(o);
	return 0;
}

#endif
