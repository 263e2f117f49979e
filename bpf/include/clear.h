// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Clearances: files of which the ruleset says nothing, to anybody, so that the next open need not find that out
// again. One is of an inode under one name: it holds for that image, while no rename and no mount has happened on the
// machine, nothing has been marked, and the inode has one link. docs/decisions/0018-clearances.md has the argument.
#ifndef MUSTER_CLEAR_H
#define MUSTER_CLEAR_H

#include "maps.h"
#include "image.h"
#include "walk.h"

#define FS_REQUIRES_DEV 1
#define TMPFS_MAGIC 0x01021994
#define RWSEM_WRITER_LOCKED 1

/* Every word is stored less the nonce: where the words of two clearances are mixed, no sum is right. */
struct clearance {
	u64 nonce;
	u64 inode;
	u64 dentry;
	u64 mount;
	u64 locks;
	u64 image;
	u64 epoch;
	u64 reserved;
};

/* Key: from the inode's address. A new clearance takes the place of the one that is there. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLEARANCES);
	__type(key, u32);
	__type(value, struct clearance);
} clearances SEC(".maps");

/* Key 0. The agent writes it; the epoch goes on in the kernel as well. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct clearing_state);
} clearing SEC(".maps");

static __always_inline struct clearing_state *clearing_now(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&clearing, &zero);
}

/* The lower half of an address: the verifier lets nobody calculate with a pointer. */
static __always_inline struct clearance *clearance_of(u64 inode)
{
	u32 key = (u32)inode >> 6;

	key = (key * 0x9e3779b1u) >> 16;
	key &= CLEARANCES - 1;
	return bpf_map_lookup_elem(&clearances, &key);
}

static __always_inline bool reads_as(u64 word, u64 nonce, u64 value)
{
	word += nonce;
	asm volatile("" : "+r"(word));
	return word == value;
}

/* From now on no clearance holds that was given before. */
static __always_inline void clearances_end(void)
{
	struct clearing_state *now = clearing_now();

	if (now)
		__sync_fetch_and_add(&now->epoch, 1);
}

/* What a decision that begins now may be remembered by. */
static __always_inline u64 clearing_epoch(void)
{
	struct clearing_state *now = clearing_now();

	return now ? now->epoch : 0;
}

static __always_inline u64 locks_of(u32 renames, u32 mounts)
{
	return (u64)renames << 32 | mounts;
}

/* Nothing is cleared where paths cannot be guarded. */
static __always_inline bool is_cleared(struct file *file, struct image_header *h)
{
	struct inode *inode = file->f_inode;
	struct clearance *c = clearance_of((u64)inode);
	struct clearing_state *now = clearing_now();
	u64 nonce;

	if (!rename_lock_addr || !mount_lock_addr || !c || !now || now->off)
		return false;
	nonce = c->nonce;
	if (!reads_as(c->inode, nonce, (u64)inode) || !reads_as(c->dentry, nonce, (u64)file->f_path.dentry) ||
	    !reads_as(c->mount, nonce, (u64)file->f_path.mnt) || !reads_as(c->image, nonce, h->id) ||
	    !reads_as(c->epoch, nonce, now->epoch))
		return false;
	if (inode->i_nlink != 1 && (inode->i_mode & S_IFMT) != S_IFDIR)
		return false;
	return reads_as(c->locks, nonce, locks_of(sequence_read(rename_lock_addr), sequence_read(mount_lock_addr)));
}

/* Later kernels have these as an enumeration, and may number them anew. */
#define DENTRY_FLAG(flag)                                                                                              \
	(bpf_core_enum_value_exists(enum dentry_flags, flag) ? bpf_core_enum_value(enum dentry_flags, flag) : flag)

/* Names change through this kernel alone, and one file is not found under several spellings of its name. */
static __always_inline bool names_are_seen(struct inode *inode, struct dentry *dentry)
{
	u32 own = DENTRY_FLAG(DCACHE_OP_HASH) | DENTRY_FLAG(DCACHE_OP_COMPARE) | DENTRY_FLAG(DCACHE_OP_REVALIDATE) |
		  DENTRY_FLAG(DCACHE_OP_WEAK_REVALIDATE);
	struct super_block *sb = READ(inode, i_sb);
	struct file_system_type *type = READ(sb, s_type);

	if (!(READ(type, fs_flags) & FS_REQUIRES_DEV) && READ(sb, s_magic) != TMPFS_MAGIC)
		return false;
	if (bpf_core_field_exists(sb->s_encoding) && READ(sb, s_encoding))
		return false;
	return !(READ(dentry, d_flags) & own);
}

/* What is read before is read before what is read behind. */
static __always_inline void fence(struct scratch *s)
{
	u32 busy = FETCH_ADD(&s->busy, 0);

	asm volatile("" : : "r"(busy));
}

static __always_inline bool is_directory_inode(struct inode *inode)
{
	return (READ(inode, i_mode) & S_IFMT) == S_IFDIR;
}

/* Nobody is about to change that the dentry is the inode's one name: whoever takes a name away holds its directory from
 * before the count sinks until the dentry is unhashed. The count has been read before. */
static __always_inline bool stays_named(struct scratch *s, struct dentry *dentry)
{
	struct dentry *parent = READ(dentry, d_parent);
	struct inode *dir = READ(parent, d_inode);

	if (!bpf_core_field_exists(dir->i_rwsem.count))
		return false;
	fence(s);
	if (READ(dir, i_rwsem.count.counter) & RWSEM_WRITER_LOCKED)
		return false;
	fence(s);
	return READ(dentry, d_hash.pprev) != 0;
}

/* Clears the file of the decision that s has come to: what no rule names by its one name, which is the host's own. */
OF_SCRATCH(int, clear)
{
	struct object *o;
	struct inode *inode;
	struct dentry *dentry;
	struct clearing_state *now = clearing_now();
	struct clearance *c;
	bool directory;
	u64 nonce;

	if (!s || !rename_lock_addr || !mount_lock_addr || !now || now->off)
		return 0;
	o = &s->object[0];
	if (o->status != PATH_OK || o->tree != TREE_HOST || o->marks[0])
		return 0;
	inode = (struct inode *)o->inode;
	dentry = (struct dentry *)o->dentry;
	/* Directories have one name. */
	directory = is_directory_inode(inode);
	if (!directory && READ(inode, i_nlink) != 1)
		return 0;
	if (!names_are_seen(inode, dentry) || (!directory && !stays_named(s, dentry)))
		return 0;
	c = clearance_of(o->inode);
	if (!c)
		return 0;
	nonce = (u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	c->nonce = nonce;
	c->inode = o->inode - nonce;
	c->dentry = o->dentry - nonce;
	c->mount = o->mount - nonce;
	c->locks = locks_of(o->renames, o->mounts) - nonce;
	c->image = s->image - nonce;
	c->epoch = s->epoch - nonce;
	return 0;
}

/* The inode goes; another one may get its address. */
static __always_inline void clearance_forget(struct inode *inode)
{
	struct clearance *c = clearance_of((u64)inode);

	if (c && reads_as(c->inode, c->nonce, (u64)inode))
		c->inode = 0;
}

#endif
