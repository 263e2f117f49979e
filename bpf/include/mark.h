// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Marks: which protected paths an inode is known by. They belong to no ruleset; an image says what a
// protected path means today.
#ifndef MUSTER_MARK_H
#define MUSTER_MARK_H

#include "maps.h"
#include "image.h"
#include "clear.h"

static __always_inline void mark_key_of(struct inode *inode, struct mark_key *key)
{
	struct super_block *sb = READ(inode, i_sb);

	key->inode = READ(inode, i_ino);
	key->device = READ(sb, s_dev);
	key->generation = READ(inode, i_generation);
}

OF_OBJECT(int, marks_of)
{
	struct mark_key key;
	struct mark *m;

	if (!o || !o->inode)
		return 0;
	mark_key_of((struct inode *)o->inode, &key);
	m = bpf_map_lookup_elem(&marks, &key);
	if (!m)
		return 0;
	for (int i = 0; i < OBJECT_MARKS; i++)
		o->marks[i] = m->paths[i];
	return 0;
}

/* Whoever is marked already stays as it is, clearances too: a marked inode has none. */
static __always_inline void mark_join(struct mark *m, u64 hash)
{
	for (int i = 0; i < OBJECT_MARKS; i++) {
		u64 had = m->paths[i];

		if (had == hash)
			return;
		if (!had && SET_ONCE(&m->paths[i], hash))
			return;
	}
	count(COUNT_MARK_OVERFLOW);
}

/* From now on the inode is known by the protected path of that hash. */
__noinline int mark_add(u64 inode, u64 hash)
{
	struct mark_key key;
	struct mark fresh = {}, *m;

	if (!inode || !hash)
		return 0;
	mark_key_of((struct inode *)inode, &key);
	m = bpf_map_lookup_elem(&marks, &key);
	if (!m) {
		fresh.paths[0] = hash;
		if (!bpf_map_update_elem(&marks, &key, &fresh, BPF_NOEXIST)) {
			clearances_end();
			return 0;
		}
		m = bpf_map_lookup_elem(&marks, &key);
	}
	if (m)
		mark_join(m, hash);
	else
		count(COUNT_MARK_FULL);
	return 0;
}

/* Tells the agent to look at the names of the ruleset again: its paths may lead elsewhere, and protected ones mean other
 * files. */
static __always_inline void names_moved(void)
{
	if (host_image())
		count(COUNT_NAMES_MOVED);
}

#define BTRFS_SUPER_MAGIC 0x9123683e

/* struct place_key. Elsewhere a generation can be set by whoever owns the file (FS_IOC_SETVERSION). */
static __always_inline u32 place_generation(struct inode *inode)
{
	return BPF_CORE_READ(inode, i_sb, s_magic) == BTRFS_SUPER_MAGIC ? BPF_CORE_READ(inode, i_generation) : 0;
}

#endif
