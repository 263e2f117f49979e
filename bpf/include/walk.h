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
};

static __always_inline u32 sequence_read(u64 address)
{
	struct seqcount *lock = (struct seqcount *)address;

	return READ(lock, sequence);
}

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((void *)mnt - bpf_core_field_offset(struct mount, mnt));
}

/* The namespace of a tree that open_tree(2) or fsmount(2) made is anonymous: it has the number 0, or later kernels
 * say so. */
static __always_inline u64 namespace_number(struct mnt_namespace *ns)
{
	struct mnt_namespace___6_18 *later = (void *)ns;
	struct mnt_namespace___7 *latest = (void *)ns;

	if (bpf_core_field_exists(ns->seq))
		return READ(ns, seq);
	if (bpf_core_field_exists(latest->is_anon))
		return !READ(latest, is_anon);
	if (bpf_core_field_exists(later->ns.ns_id))
		return BPF_CORE_READ(later, ns.ns_id);
	return 1;
}

/* The first mount namespace: that of the kernel's own first task. */
static __always_inline struct mnt_namespace *home_namespace(void)
{
	struct nsproxy *proxy = (struct nsproxy *)init_nsproxy_addr;

	return init_nsproxy_addr && init_user_ns_addr ? READ(proxy, mnt_ns) : 0;
}

/* Where addresses are hidden every namespace counts as the host's own. */
static __always_inline u32 tree_of(struct mnt_namespace *ns)
{
	struct mnt_namespace *home = home_namespace();

	if (!home || ns == home)
		return TREE_HOST;
	return (u64)READ(ns, user_ns) == init_user_ns_addr ? TREE_ROOT : TREE_USER;
}

static __always_inline u32 walk_top(struct object *o, struct mount *mount)
{
	struct mnt_namespace *ns = READ(mount, mnt_ns);

	/* The kernel mounts message queues and huge pages for itself, in no namespace. */
	if (!ns)
		return READ(mount, mnt.mnt_flags) & MNT_INTERNAL ? PATH_INTERNAL : PATH_DETACHED;
	if ((s64)ns < 0 && (s64)ns >= -4095)
		return PATH_INTERNAL;
	o->tree = tree_of(ns);
	return namespace_number(ns) ? PATH_OK : PATH_DETACHED;
}

/* The walk goes on at the place where the mount is mounted. */
static __always_inline long walk_up(struct object *o)
{
	struct mount *mount = LOOSE((struct mount *)o->at_mount);
	struct mount *above = SEEN(mount, mnt_parent);

	if ((u64)above == o->at_mount) {
		o->status = walk_top(o, above);
		return 1;
	}
	o->at_dentry = (u64)SEEN(mount, mnt_mountpoint);
	o->at_mount = (u64)above;
	o->at_root = (u64)READ(above, mnt.mnt_root);
	return 0;
}

#ifdef PROBING
static __always_inline bool name_copy(struct object *o, u32 end, const void *name, u32 length)
{
	u64 at = end - length, all = length;

	BOUND(at, PATH_END - 1);
	BOUND(all, 255);
	return !bpf_probe_read_kernel(&o->buffer[at], all, name);
}
#else
/* Copies a name to where end is its end in the buffer, word by word from its end. The first word may begin before
 * the name: what that writes is overwritten by the name before it, or lies before the path. */
static __always_inline bool name_copy(struct object *o, u32 end, const void *name, u32 length)
{
	u64 last = end - 1, at = end - length, all = length;
	u64 *words;

	if (length <= 8 * NAME_WORDS) {
		BOUND(last, PATH_END - 1);
		words = bpf_rdonly_cast(name + length - 8 * NAME_WORDS, bpf_core_type_id_kernel(struct rusage));
#pragma unroll
		for (u32 i = 1; i <= NAME_WORDS; i++)
			if (length > (i - 1) * 8)
				*(u64 *)(o->buffer + 1 - i * 8 + last) = words[NAME_WORDS - i];
		return true;
	}
	BOUND(at, PATH_END - 1);
	BOUND(all, 255);
	return !bpf_probe_read_kernel(&o->buffer[at], all, name);
}
#endif

/* One name. Answers true when the walk ends with it. */
static __always_inline long walk_name(struct object *o)
{
	struct dentry *dentry = LOOSE((struct dentry *)o->at_dentry), *parent;
	u32 length, end = o->start;
	u64 at;

	parent = SEEN(dentry, d_parent);
	/* A file of a mount of the kernel's own, or a handle that nobody has connected yet. */
	if ((u64)parent == o->at_dentry || !parent) {
		o->status = walk_top(o, (struct mount *)o->at_mount) == PATH_INTERNAL ? PATH_INTERNAL : PATH_DETACHED;
		return 1;
	}
	length = SEEN(dentry, d_name.len);
	if (length > 255 || end < length + 1) {
		o->status = PATH_LONG;
		return 1;
	}
	if (!name_copy(o, end, SEEN(dentry, d_name.name), length)) {
		o->status = PATH_RACED;
		return 1;
	}
	at = end - length - 1;
	o->start = at;
	BOUND(at, PATH_END - 1);
	o->buffer[at] = '/';
	o->at_dentry = (u64)parent;
	return 0;
}

/* Names in one turn of the loop: a turn costs as much as reading half a name. */
#define WALK_NAMES 3

static long walk_step(u32 index, struct walk *w)
{
	struct object *o = w->object;

#pragma unroll
	for (u32 i = 0; i < WALK_NAMES && o->at_dentry != o->at_root; i++)
		if (walk_name(o))
			return 1;
	return o->at_dentry == o->at_root ? walk_up(o) : 0;
}

LOOPED_LONG(walk_step, struct walk, (u32 index, u32 self), (index, self), of.object, (index, of->object->cursor.self),
	    { .object = object_at(self) })

/* One attempt. Nothing is written behind PATH_END; the room there is for the verifier, which sees no sum. */
static __always_inline void walk_once(struct walk *w, struct mount *mount)
{
	struct object *o = w->object;

	o->status = PATH_LONG;
	o->start = PATH_END;
	o->at_dentry = o->dentry;
	o->at_mount = (u64)mount;
	o->at_root = (u64)READ(mount, mnt.mnt_root);
	LOOP_LONG(WALK_STEPS, walk_step, w);
	if (o->status == PATH_OK && o->start == PATH_END) {
		o->start = PATH_END - 1;
		o->buffer[PATH_END - 1] = '/';
	}
	/* PATH_MAX counts the NUL. */
	if (o->status == PATH_OK && o->start == 0)
		o->status = PATH_LONG;
}

/* Notes where the locks are before a path is read; false while one of them is held. */
static __always_inline bool walk_begins(struct object *o)
{
	o->renames = sequence_read(rename_lock_addr);
	o->mounts = sequence_read(mount_lock_addr);
	return !((o->renames | o->mounts) & 1);
}

/* Whether they are still there. */
static __always_inline bool walk_held(struct object *o)
{
	return o->renames == sequence_read(rename_lock_addr) && o->mounts == sequence_read(mount_lock_addr);
}

static long walk_attempt(u32 index, struct walk *w)
{
	struct object *o = w->object;

	o->status = PATH_RACED;
	if (!walk_begins(o))
		return 0;
	walk_once(w, mount_of((struct vfsmount *)o->mount));
	if (walk_held(o))
		return 1;
	o->status = PATH_RACED;
	return 0;
}

LOOPED(walk_attempt, struct walk, (u32 index, u32 self), of.object, (index, of->object->cursor.self),
       { .object = object_at(self) })

/* Container runtimes and systemd open files of a procfs or sysfs that is mounted nowhere yet (fsopen, fsmount). All
 * the world has these below /proc and /sys, so that is what their files are called. */
static __always_inline void walk_unmounted(struct object *o)
{
	struct mount *mount = mount_of((struct vfsmount *)o->mount);
	struct super_block *sb = READ(mount, mnt.mnt_sb);
	unsigned long magic = READ(sb, s_magic);
	u64 at = o->start;

	if (magic != PROC_SUPER_MAGIC && magic != SYSFS_MAGIC)
		return;
	if (READ(mount, mnt_parent) != mount || READ(mount, mnt.mnt_root) != READ(sb, s_root))
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
OF_OBJECT(int, walk)
{
	struct walk w = { .object = o };

	if (!o)
		return 0;
	o->tree = TREE_HOST;
	o->home = 0;
	if (rename_lock_addr && mount_lock_addr) {
		LOOP(WALK_ATTEMPTS, walk_attempt, &w);
	} else {
		count(COUNT_NO_SEQUENCE);
		walk_once(&w, mount_of((struct vfsmount *)o->mount));
	}
	if (o->status == PATH_DETACHED)
		walk_unmounted(o);
	return 0;
}

#endif
