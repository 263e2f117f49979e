// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Home names: what the host itself calls a file that is reached in another mount namespace. There a process may show
// any file under any name; docs/decisions/0015-home-names.md says which name counts for what.
#ifndef MUSTER_HOME_H
#define MUSTER_HOME_H

#include "walk.h"
#include "hash.h"

/* Mounts of one filesystem that are looked at. The host's are older than those that copy them: they come first before
 * 6.18, which keeps the newest first. */
#define HOME_STEPS 8192

struct home {
	struct walk walk;
	struct super_block *sb;
	struct mnt_namespace *namespace;
};

/* What the loop changes is in the object's memory: 6.1 follows one turn of what is on the stack. */
enum home_word {
	HOME_BEGUN, /* 0: from the beginning */
	HOME_NEXT, /* the next mount; 0: there is none */
	HOME_MOUNTS, /* mount_lock, when that was read */
};

/* The mount that an entry of the filesystem's list belongs to; 0 for the list's own head. */
static __always_inline u64 home_listed(struct super_block *sb, struct list_head *entry)
{
	if ((void *)entry == (void *)sb + bpf_core_field_offset(struct super_block, s_mounts))
		return 0;
	return (u64)((void *)entry - bpf_core_field_offset(struct mount, mnt_instance));
}

static __always_inline u64 home_first(struct super_block *sb)
{
	struct super_block___6_18 *later = (void *)sb;

	if (bpf_core_field_exists(struct mount, mnt_instance))
		return home_listed(sb, READ(sb, s_mounts.next));
	return (u64)READ(later, s_mounts);
}

static __always_inline u64 home_after(struct super_block *sb, struct mount *mount)
{
	struct mount___6_18 *later = (void *)mount;

	if (bpf_core_field_exists(struct mount, mnt_instance))
		return home_listed(sb, READ(mount, mnt_instance.next));
	return (u64)READ(later, mnt_next_for_sb);
}

/* One mount of the filesystem: the path through it, when it is the host's and the object is below it. */
static long home_step(u32 index, struct home *h)
{
	struct super_block *sb = h->sb;
	struct object *o = h->walk.object;
	u64 *words = o->cursor.words;
	struct mount *mount;

	if (!walk_begins(o))
		return 0;
	if (!words[HOME_BEGUN] || o->mounts != words[HOME_MOUNTS]) {
		words[HOME_BEGUN] = 1;
		words[HOME_NEXT] = home_first(sb);
		words[HOME_MOUNTS] = o->mounts;
	}
	mount = (struct mount *)words[HOME_NEXT];
	if (!mount) {
		o->status = PATH_HOMELESS;
		return o->mounts == sequence_read(mount_lock_addr);
	}
	words[HOME_NEXT] = home_after(sb, mount);
	if (READ(mount, mnt_ns) != h->namespace)
		return 0;
	walk_once(&h->walk, mount);
	if (!walk_held(o)) {
		words[HOME_BEGUN] = 0;
		o->status = PATH_RACED;
		return 0;
	}
	return o->status != PATH_DETACHED;
}

LOOPED_LONG(home_step, struct home, (u32 index, u32 self, u64 sb, u64 namespace), (index, self, sb, namespace),
	    of.walk.object, (index, of->walk.object->cursor.self, (u64)of->sb, (u64)of->namespace),
	    { .walk.object = object_at(self), .sb = (void *)sb, .namespace = (void *)namespace })

/* Builds the path by which the host reaches object->dentry into object->buffer, and sets object->status. */
OF_OBJECT(int, walk_home)
{
	struct home h = { .walk.object = o };
	struct dentry *dentry;
	u32 tree;

	if (!o)
		return 0;
	tree = o->tree;
	o->status = PATH_HOMELESS;
	o->home = 1;
	if (!rename_lock_addr || !mount_lock_addr)
		return 0;
	dentry = (struct dentry *)o->dentry;
	if (!dentry) {
		o->status = PATH_DETACHED;
		return 0;
	}
	h.sb = READ(dentry, d_sb);
	h.namespace = home_namespace();
	o->status = PATH_RACED;
	o->cursor.words[HOME_BEGUN] = 0;
	LOOP_LONG(HOME_STEPS, home_step, &h);
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
