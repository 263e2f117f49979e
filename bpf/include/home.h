// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Home names: what the host itself calls a file that is reached in another mount namespace. There a process may show
// any file under any name; docs/decisions/0015-home-names.md says which name counts for what.
#ifndef MUSTER_HOME_H
#define MUSTER_HOME_H

#include "walk.h"
#include "hash.h"

/* Mounts of one filesystem that are looked at. They are in the order in which they were made, and the host's are older
 * than those that copy them. */
#define HOME_STEPS 8192

struct home {
	struct walk walk;
	struct super_block *sb;
	struct mnt_namespace *namespace;
};

/* What the loop changes is in the object's memory: 6.1 follows one turn of what is on the stack. */
enum home_word {
	HOME_NEXT, /* struct list_head of the next mount; 0: from the beginning */
	HOME_MOUNTS, /* mount_lock, when that was read */
};

/* One mount of the filesystem: the path through it, when it is the host's and the object is below it. */
static long home_step(u32 index, struct home *h)
{
	struct super_block *sb = h->sb;
	struct object *o = h->walk.object;
	u64 *words = o->cursor.words;
	struct list_head *next;
	struct mount *mount;

	if (!walk_begins(o))
		return 0;
	if (!words[HOME_NEXT] || o->mounts != words[HOME_MOUNTS]) {
		words[HOME_NEXT] = (u64)READ(sb, s_mounts.next);
		words[HOME_MOUNTS] = o->mounts;
	}
	next = (struct list_head *)words[HOME_NEXT];
	if ((void *)next == (void *)sb + bpf_core_field_offset(struct super_block, s_mounts)) {
		o->status = PATH_HOMELESS;
		return o->mounts == sequence_read(mount_lock_addr);
	}
	mount = (struct mount *)((void *)next - bpf_core_field_offset(struct mount, mnt_instance));
	words[HOME_NEXT] = (u64)READ(mount, mnt_instance.next);
	if (READ(mount, mnt_ns) != h->namespace)
		return 0;
	walk_once(&h->walk, mount);
	if (!walk_held(o)) {
		words[HOME_NEXT] = 0;
		o->status = PATH_RACED;
		return 0;
	}
	return o->status != PATH_DETACHED;
}

/* Builds the path by which the host reaches object->dentry into object->buffer, and sets object->status. */
__noinline int walk_home(struct object *o)
{
	struct home h = { .walk.object = o };
	struct dentry *dentry;
	u32 tree;

	if (!o)
		return 0;
	tree = o->tree;
	o->status = PATH_HOMELESS;
	o->home = 1;
	/* Later kernels keep a filesystem's mounts in another way, which nobody has tried. */
	if (!bpf_core_field_exists(struct mount, mnt_instance) || !rename_lock_addr || !mount_lock_addr)
		return 0;
	dentry = (struct dentry *)o->dentry;
	if (!dentry) {
		o->status = PATH_DETACHED;
		return 0;
	}
	h.sb = READ(dentry, d_sb);
	h.namespace = home_namespace();
	o->status = PATH_RACED;
	o->cursor.words[HOME_NEXT] = 0;
	bpf_loop(HOME_STEPS, home_step, &h, 0);
	o->tree = tree;
	return 0;
}

/* The hash by which a program's file is known as a source. A name that somebody gave it in a namespace grants nothing:
 * the file is known by it as by a mark, for Block only. */
static __always_inline u64 source_hash(struct object *o)
{
	u64 shown = path_hash(o), home;

	if (o->tree == TREE_HOST)
		return shown;
	walk_home(o);
	home = path_hash(o);
	if (!shown || shown == home)
		return home;
	for (u32 i = 0; i < SOURCE_MARKS; i++) {
		if (!o->marks[i] || o->marks[i] == shown) {
			o->marks[i] = shown;
			return home;
		}
	}
	count(COUNT_MARK_OVERFLOW);
	return home;
}

#endif
