// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Self-protection: what of the agent's a name is, or is below, and who may change it.
#ifndef MUSTER_SELF_PLACE_H
#define MUSTER_SELF_PLACE_H

#include "held.h"
#include "self.h"

/* A path within one filesystem has at most so many components that are looked at; what is deeper is taken for the
 * agent's. */
#define SELF_DEPTH 512

static __always_inline u32 self_place(u32 device, u64 inode, u32 generation)
{
	struct place_key key = { .inode = inode, .device = device, .generation = generation };
	u32 *place = bpf_map_lookup_elem(&places, &key);

	return place ? *place : 0;
}

static __always_inline u32 self_place_of(struct dentry *dentry)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);

	if (!inode)
		return 0;
	return self_place(BPF_CORE_READ(dentry, d_sb, s_dev), BPF_CORE_READ(inode, i_ino), place_generation(inode));
}

static __always_inline bool self_prefix(u64 word, u64 wanted, int bytes)
{
	return !((word ^ wanted) << (64 - 8 * bytes));
}

/* "system", "genera(tor)", "transi(ent)": where systemd looks for units, below its directories. Elsewhere it keeps
 * what it needs in order to start them. */
static __always_inline bool self_holds_units(struct dentry *top)
{
	u64 words[2] = {};

	bpf_probe_read_kernel_str(words, sizeof(words), BPF_CORE_READ(top, d_name.name));
	/* Not "system.conf", which is no unit's. */
	if (self_prefix(words[0], 0x6d6574737973ULL, 6))
		return words[0] != 0x632e6d6574737973ULL || !self_prefix(words[1], 0x666e6fULL, 3);
	return self_prefix(words[0], 0x6172656e6567ULL, 6) || self_prefix(words[0], 0x69736e617274ULL, 6);
}

/* "service.d": files that systemd adds to every service. */
static __always_inline bool self_is_every_service(const char *kernel_name)
{
	u64 words[2] = {};

	bpf_probe_read_kernel_str(words, sizeof(words), kernel_name);
	return words[0] == 0x2e65636976726573ULL && words[1] == 'd';
}

struct self_names {
	u64 at;
	u64 place;
	u64 below; /* the name next to the place */
	u32 kind;
	u32 found;
};

static long self_names_step(u32 index, struct self_names *n)
{
	struct dentry *dentry = (struct dentry *)n->at;
	struct self *self = self_get();
	const char *name;

	if (!self || n->at == n->place)
		return 1;
	name = (const char *)BPF_CORE_READ(dentry, d_name.name);
	if (self_name_is_unit(self, name, n->kind & PLACE_GROUPS))
		n->found = 1;
	if (n->kind & PLACE_EVERY && self_is_every_service(name))
		n->found = 1;
	n->below = n->at;
	n->at = (u64)BPF_CORE_READ(dentry, d_parent);
	return 0;
}

/* Whether one of the names from dentry up to the place is the agent's unit. */
__noinline int self_names_unit(u64 name_of, u64 place, u32 kind)
{
	struct self_names names = { .at = name_of, .place = place, .below = name_of, .kind = kind };
	struct self *self = self_get();

	if (!self || !self->unit[0])
		return false;
	bpf_loop(SELF_DEPTH, self_names_step, &names, 0);
	return names.found && (kind & PLACE_GROUPS || self_holds_units((struct dentry *)names.below));
}

#define PLACE_COVERING (PLACE_TREE | PLACE_RUN | PLACE_UNITS | PLACE_GROUPS)

static __always_inline bool self_is_kernel(void)
{
	return bpf_get_current_task_btf()->flags & PF_KTHREAD;
}

struct self_climb {
	u64 at;
	u64 place;
};

static long self_climb_step(u32 index, struct self_climb *c)
{
	struct dentry *dentry = (struct dentry *)c->at, *parent = BPF_CORE_READ(dentry, d_parent);
	u32 place = self_place_of(dentry);

	if (place & PLACE_COVERING) {
		c->place = place;
		return 1;
	}
	if (parent == dentry) {
		/* Opened by a handle, and connected to nothing: nobody can say whose it is. The kernel's own server of files
		 * does that. */
		c->place = dentry == BPF_CORE_READ(dentry, d_sb, s_root) || self_is_kernel() ? 0 : PLACE_TREE;
		return 1;
	}
	c->at = (u64)parent;
	return 0;
}

/* What of the agent's dentry is, or is below: bits of enum place. The name is followed upwards within its filesystem,
 * so that it does not matter where that is mounted. */
__noinline int self_covers(u64 name_of)
{
	struct dentry *dentry = (struct dentry *)name_of;
	struct self_climb c = { .at = name_of, .place = PLACE_TREE };

	if (!self_place(BPF_CORE_READ(dentry, d_sb, s_dev), 0, 0))
		return 0;
	bpf_loop(SELF_DEPTH, self_climb_step, &c, 0);
	if (c.place & (PLACE_TREE | PLACE_RUN))
		return c.place & (PLACE_TREE | PLACE_RUN);
	if (c.place & (PLACE_UNITS | PLACE_GROUPS) && self_names_unit(name_of, c.at, c.place))
		return c.place & (PLACE_UNITS | PLACE_GROUPS);
	return 0;
}

/* What is done to a name or a file. */
enum self_act {
	SELF_SETS_UP, /* makes a directory, or gives something an owner or a mode */
	SELF_CHANGES,
};

/* Whether the caller may change what is covered. Whoever starts the agent makes the directory of its socket and its
 * control group, which only what was with it until now may join; the process that becomes the agent sets up the other
 * directories, and changes nothing in them. */
static __noinline bool self_may(u32 covered, u32 act)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool launched;

	if (self_is(task))
		return true;
	launched = self_mark_of(task->group_leader) & SELF_LAUNCHED;
	if (covered & (PLACE_GROUPS | PLACE_RUN) && self_is_launcher(task, self_get()))
		return true;
	if (covered & PLACE_GROUPS)
		return launched && self_with_launcher(task);
	if (covered & PLACE_RUN)
		return launched;
	return covered & PLACE_TREE && act == SELF_SETS_UP && launched && self_in_unit(task);
}

/* A name that is made, removed or changed, or what it names. */
static __always_inline int self_name(struct dentry *dentry, u32 act)
{
	u32 covered = self_covers(self_number(dentry));

	if (!covered || self_may(covered, act))
		return 0;
	return self_deny(EACCES);
}

/* A directory of units: what is in its place is read in its stead. */
static __always_inline bool self_is_units(struct dentry *dentry)
{
	return self_place_of(BPF_CORE_READ(dentry, d_parent)) & PLACE_UNITS && self_holds_units(dentry);
}

/* The way to a directory of units that is not there: "lib", "systemd". */
static __always_inline bool self_is_absent(struct dentry *dentry)
{
	u64 word = 0;

	if (!(self_place_of(BPF_CORE_READ(dentry, d_parent)) & PLACE_ABSENT))
		return false;
	bpf_probe_read_kernel_str(&word, sizeof(word), BPF_CORE_READ(dentry, d_name.name));
	return word == 0x62696cULL || word == 0x646d6574737973ULL;
}

/* A name where something may come into the place of what the agent has there. */
static __always_inline int self_new_name(struct dentry *dentry, u32 act)
{
	if (self_is_absent(dentry) && !self_caller_is())
		return self_deny(EACCES);
	return self_name(dentry, act);
}

/* Without it the kernel calls no program of its security hooks. */
static __always_inline bool self_is_switch(struct dentry *dentry)
{
	u64 words[2] = {};

	if (BPF_CORE_READ(dentry, d_sb, s_magic) != PROC_SUPER_MAGIC)
		return false;
	bpf_probe_read_kernel_str(words, sizeof(words), BPF_CORE_READ(dentry, d_name.name));
	return words[0] == 0x655f656361727466ULL && words[1] == 0x64656c62616eULL; /* "ftrace_enabled" */
}

#endif
