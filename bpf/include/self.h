// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Self-protection: who is the agent. Nothing here depends on a ruleset or its mode.
// docs/decisions/0014-self-protection.md says what it holds against.
#ifndef MUSTER_SELF_H
#define MUSTER_SELF_H

#include "judge.h"

#define CLONE_THREAD 0x00010000
#define PTRACE_MODE_ATTACH 0x02
#define SIGHUP 1
#define SIGCONT 18
#define SIGURG 23

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id;
	const char *name;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct___self {
	unsigned int ptrace;
	struct css_set *cgroups;
};

#pragma clang attribute pop

static __always_inline struct self *self_get(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&agent, &zero);
}

static __always_inline u32 self_mark_of(struct task_struct *leader)
{
	u32 *mark = TASK_GET(self_marks, leader, 0);

	return mark ? *mark : 0;
}

/* Whether a process is the agent: the one that has claimed it, or one that may. */
static __always_inline bool self_is(struct task_struct *task)
{
	u32 zero = 0;
	struct settings *c = bpf_map_lookup_elem(&config, &zero);

	if (c && c->agent_tgid && BPF_CORE_READ(task, tgid) == c->agent_tgid &&
	    BPF_CORE_READ(task, group_leader, start_boottime) / NANOSECONDS_PER_TICK == c->agent_start)
		return true;
	return self_mark_of(task->group_leader) & SELF_AGENT;
}

static __always_inline bool self_caller_is(void)
{
	return self_is(bpf_get_current_task_btf());
}

static __always_inline bool self_is_launcher(struct task_struct *task, struct self *self)
{
	return self && self->launcher && BPF_CORE_READ(task, tgid) == self->launcher &&
	       BPF_CORE_READ(task, group_leader, start_boottime) / NANOSECONDS_PER_TICK == self->launcher_start;
}

/* Words of a name that are compared at once; what is behind its end is zero. */
struct self_name {
	u64 words[SELF_UNIT_WORDS];
};

static __always_inline bool self_name_is_unit(struct self *self, const char *kernel_name, bool exact)
{
	struct self_name name = {};
	u64 other = 0;

	bpf_probe_read_kernel_str(&name, sizeof(name), kernel_name);
	for (int i = 0; i < SELF_UNIT_WORDS; i++)
		other |= (name.words[i] ^ self->unit[i]) & (exact ? self->unit_exact[i] : self->unit_mask[i]);
	return !other;
}

/* Whether a control group is that of the agent's unit: it is made anew with each start, in the same group. */
static __noinline bool self_group_is_unit(struct cgroup *group)
{
	struct self *self = self_get();
	const char *name;

	if (!self)
		return false;
	name = BPF_CORE_READ(group, kn, name);
	return name && self_name_is_unit(self, name, true) &&
	       BPF_CORE_READ(group, self.parent, cgroup, kn, id) == self->group_parent;
}

static __always_inline struct cgroup *self_group_of(struct task_struct *task)
{
	struct task_struct___self *t = (void *)task;

	return BPF_CORE_READ(t, cgroups, dfl_cgrp);
}

static __always_inline bool self_in_unit(struct task_struct *task)
{
	struct self *self = self_get();

	return self && (!self->unit[0] || self_group_is_unit(self_group_of(task)));
}

/* What the launcher made is with it until it goes to its unit. */
static __always_inline bool self_with_launcher(struct task_struct *task)
{
	struct self *self = self_get();

	return self && (!self->unit[0] || BPF_CORE_READ(self_group_of(task), kn, id) == self->launcher_group);
}

/* Counted, so that the report says that somebody tried. */
static __always_inline int self_deny(int error)
{
	struct self *self = self_get();

	if (!self || self->off)
		return 0;
	count(COUNT_SELF);
	return -error;
}

/* An address as a number, which is all that a global function takes: to the verifier a pointer is none. */
static __always_inline u64 self_number(const void *address)
{
	u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &address);
	return number;
}

#endif
