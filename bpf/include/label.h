// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Labels: who a thread is. Set at exec, inherited at fork, derived from the executable for threads that
// were there before. A script's name is known only for programs started since.
#ifndef MUSTER_LABEL_H
#define MUSTER_LABEL_H

#include "maps.h"
#include "walk.h"
#include "hash.h"
#include "mark.h"
#include "home.h"

static __always_inline void object_set(struct object *o, struct vfsmount *mnt, struct dentry *dentry,
				       struct inode *inode)
{
	o->mount = (u64)mnt;
	o->dentry = (u64)dentry;
	o->inode = (u64)inode;
	o->status = PATH_NONE;
	o->attributes = 0;
	o->unasked = 0;
	o->present = 1;
	o->tree = TREE_HOST;
	o->home = 0;
	o->unsaid = 0;
	o->protects = 0;
	for (int i = 0; i < OBJECT_MARKS; i++)
		o->marks[i] = 0;
}

/* Puts the executable of a task into o; false when it has none. */
static __always_inline bool executable_of(struct task_struct *task, struct object *o)
{
	struct mm_struct *mm = READ(task, mm);
	struct file *file = mm ? READ(mm, exe_file) : 0;

	if (!file)
		return false;
	object_set(o, READ(file, f_path.mnt), READ(file, f_path.dentry), READ(file, f_inode));
	walk(o);
	return true;
}

/* The caller's executable, or that of who started it, into s->source. */
OF_SCRATCH1(int, executable_find, bool, parent)
{
	struct task_struct *task = current_task();

	if (!s)
		return 0;
	if (parent)
		task = READ(task, real_parent);
	return executable_of(task, &s->source);
}

/* Notes o as a source: which is 0 for the executable, 1 for the script. */
static __always_inline void source_note(u64 *source, struct object *o, u64 hash, u32 which)
{
	source[which] = hash;
	for (int i = 0; i < SOURCE_MARKS; i++)
		source[2 + which * SOURCE_MARKS + i] = o->marks[i];
	if (o->marks[SOURCE_MARKS])
		count(COUNT_MARK_OVERFLOW);
}

/* Where a chain has the hash of one of its scripts' marks. */
#define CHAIN_MARK(middle, n) (MIDDLES + (middle)*SOURCE_MARKS + (n))

/* Takes the chain of the caller, or of who started it, into s->chain. */
OF_SCRATCH1(int, chain_take, bool, caller)
{
	struct chain *c = TASK_GET(chains, current_task(), 0);

	if (!s || !c)
		return 0;
	for (int i = 0; i < CHAIN; i++)
		s->chain[i] = caller ? c->caller[i] : c->source[i];
	s->chained = 1;
	return 0;
}

/* The classes of the caller's chain, as its label has those of the other sources. */
OF_SCRATCH1(int, chain_classes, bool, keep)
{
	struct chain *c = TASK_GET(chains, current_task(), 0);

	if (!s || !c)
		return 0;
	for (int i = 0; i < CHAIN; i++) {
		if (keep)
			c->classes[i] = s->classes[CHAIN_CLASSES + i];
		else
			s->classes[CHAIN_CLASSES + i] = c->classes[i];
	}
	return 0;
}

/* Derives s->label from the executable that executable_of put into s->source. */
static __always_inline void label_derive(struct scratch *s)
{
	__builtin_memset(&s->label, 0, sizeof(s->label));
	if (s->source.status != PATH_OK)
		count(COUNT_SOURCE_PATH);
	marks_of(&s->source);
	source_note(s->label.source, &s->source, source_hash(&s->source), 0);
}

/* Labels the caller, which has no label yet; the label is in s->label even without memory to keep it. */
NEAR_OF_SCRATCH(int, label_current)
{
	struct task_struct *task = current_task();
	struct label *l;

	if (!s)
		return 0;
	count(COUNT_LAZY_LABEL);
	if (executable_of(task, &s->source))
		label_derive(s);
	else
		__builtin_memset(&s->label, 0, sizeof(s->label));
	l = TASK_GET(labels, task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!l) {
		count(COUNT_LABEL_MEMORY);
		return 0;
	}
	for (int i = 0; i < SOURCES; i++)
		l->source[i] = s->label.source[i];
	l->image = 0;
	l->flags = LABEL_KNOWN;
	return 0;
}

/* The classes of the caller under the image that s is judged by, into s->classes; its label keeps them. */
static __always_inline void classify_current(struct scratch *s)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	s->chained = 0;
	if (!l || !(l->flags & LABEL_KNOWN)) {
		label_current(s);
		classify(s);
		return;
	}
	if (l->flags & LABEL_CHAINED)
		chain_take(s, false);
	s->label.source[1] = l->source[1];
	if (l->image == s->image) {
		for (int i = 0; i < SOURCES; i++)
			s->classes[i] = l->classes[i];
		if (s->chained)
			chain_classes(s, false);
		s->postures = l->postures;
		return;
	}
	for (int i = 0; i < SOURCES; i++)
		s->label.source[i] = l->source[i];
	classify(s);
	if (s->again)
		return;
	for (int i = 0; i < SOURCES; i++)
		l->classes[i] = s->classes[i];
	for (int i = 0; i < NAMED_CLASSES; i++)
		l->names[i] = s->names[i];
	if (s->chained)
		chain_classes(s, true);
	l->postures = s->postures;
	l->image = s->image;
}

/* The same of who started the program. */
static __always_inline bool classify_caller(struct scratch *s)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	s->chained = 0;
	if (!l)
		return false;
	if (l->flags & LABEL_CALLER_CHAINED)
		chain_take(s, true);
	for (int i = 0; i < SOURCES; i++)
		s->label.source[i] = l->caller[i];
	classify(s);
	return true;
}

/* /proc/PID/stat tells the agent its own start in ticks of 10 ms. */
#define NANOSECONDS_PER_TICK 10000000

__noinline int caller_is_agent(void)
{
	struct task_struct *task = current_task();
	u32 zero = 0;
	struct settings *c = bpf_map_lookup_elem(&config, &zero);

	return c && c->agent_tgid && (bpf_get_current_pid_tgid() >> 32) == c->agent_tgid &&
	       TRUSTED(LOOSE(task), group_leader, start_boottime) / NANOSECONDS_PER_TICK == c->agent_start;
}

#endif
