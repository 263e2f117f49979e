// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Self-protection: what is mounted over the agent's places, and what lies on the way to them.
#ifndef MUSTER_SELF_MOUNT_H
#define MUSTER_SELF_MOUNT_H

#include "self_place.h"

#define MS_REMOUNT 32
#define MS_MOVE 8192
#define MS_PROPAGATION (1UL << 20 | 1UL << 18 | 1UL << 19 | 1UL << 17) /* shared, private, slave, unbindable */
#define MNT_SHARED 0x1000
#define MNT_DETACH 2
#define MS_BIND 4096
#define SELF_MOUNTS 8192

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common___self {
	unsigned int inum;
};

struct mnt_namespace___self {
	struct ns_common___self ns;
};

struct mount___self {
	struct list_head mnt_mounts;
	struct list_head mnt_child;
};

#pragma clang attribute pop

static __always_inline u32 self_mounts_of(struct mount *mount)
{
	struct mnt_namespace___self *ns = (void *)BPF_CORE_READ(mount, mnt_ns);

	return ns ? BPF_CORE_READ(ns, ns.inum) : 0;
}

/* Whether a mount is where the host or the agent looks. The number of an agent's namespace that has gone is soon that of the
 * next one, which is only being made: it is known by the one that is not given again. Where addresses are hidden every
 * namespace counts as the host's. */
static __always_inline bool self_looks(struct mount *mount)
{
	struct mnt_namespace *ns = BPF_CORE_READ(mount, mnt_ns), *home = home_namespace();
	struct self *self = self_get();

	return self && (!home || ns == home || namespace_number(ns) == self->own_mounts);
}

/* Whether what is done to a mount shows where the host or the agent looks: there, or where it spreads from. */
static __always_inline bool self_shows(struct vfsmount *mnt)
{
	return BPF_CORE_READ(mnt, mnt_flags) & MNT_SHARED || self_looks(mount_of(mnt));
}

/* Something is put over a path. */
static __always_inline int self_over(struct path *path)
{
	struct dentry *dentry = BPF_CORE_READ(path, dentry);

	if (!(self_place_of(dentry) & PLACE_ABOVE) && !self_is_units(dentry) && !self_covers(self_number(dentry)))
		return 0;
	if (!self_shows(BPF_CORE_READ(path, mnt)) || self_caller_is())
		return 0;
	return self_deny(EACCES);
}

/* Whether a mount lies where one on the way to what is the agent's does. */
static __always_inline bool self_on_way(struct mount *mount)
{
	return self_place_of(BPF_CORE_READ(mount, mnt_mountpoint)) & PLACE_MOUNT;
}

static __always_inline bool self_spreads(struct mount *mount)
{
	return BPF_CORE_READ(mount, mnt_parent, mnt.mnt_flags) & MNT_SHARED;
}

/* Whether it is that mount itself, where the host or the agent looks, and not one of the same place elsewhere: all that
 * it is mounted on are on the way as well. */
__noinline int self_is_way(u64 mount_number)
{
	struct mount *mount = (struct mount *)mount_number, *parent;

	if (!self_looks(mount))
		return false;
	for (int i = 0; i < 8; i++) {
		parent = BPF_CORE_READ(mount, mnt_parent);
		if (parent == mount)
			return true;
		if (!self_on_way(mount) && BPF_CORE_READ(mount, mnt_mountpoint) != BPF_CORE_READ(parent, mnt.mnt_root))
			return false;
		mount = parent;
	}
	return true;
}

struct self_tree {
	u64 top;
	u64 at;
	u64 up; /* what is below it was looked at */
	u64 found;
};

static long self_tree_step(u32 index, struct self_tree *t)
{
	struct mount___self *at = (void *)t->at, *parent;
	struct list_head *next;

	if (!t->up) {
		if (t->at != t->top && self_on_way((void *)at) && self_spreads((void *)at)) {
			t->found = 1;
			return 1;
		}
		next = BPF_CORE_READ(at, mnt_mounts.next);
		if ((u64)next != t->at + bpf_core_field_offset(struct mount___self, mnt_mounts)) {
			t->at = (u64)next - bpf_core_field_offset(struct mount___self, mnt_child);
			return 0;
		}
	}
	if (t->at == t->top) {
		t->found = 0;
		return 1;
	}
	parent = (void *)BPF_CORE_READ((struct mount *)at, mnt_parent);
	next = BPF_CORE_READ(at, mnt_child.next);
	t->up = (void *)next == (void *)parent + bpf_core_field_offset(struct mount___self, mnt_mounts);
	t->at = t->up ? (u64)parent : (u64)next - bpf_core_field_offset(struct mount___self, mnt_child);
	return 0;
}

/* Whether with a mount, and all that are on it, one would go from the host too, by the way of what they share. Too many
 * to say: yes. */
static __noinline int self_carries(struct mount *top)
{
	u64 number = self_number(top), zero = self_number(0);
	struct self_tree tree = { .top = number, .at = number, .up = zero, .found = 2 };

	bpf_loop(SELF_MOUNTS, self_tree_step, &tree, 0);
	return tree.found != 0;
}

#endif
