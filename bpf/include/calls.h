// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// System calls: which one a task is in, by the numbers of its own ABI, and what rules say of it. Nothing is
// ever denied here.
#ifndef MUSTER_CALLS_H
#define MUSTER_CALLS_H

#include "judge.h"

/* A system call of the caller. */
struct made {
	struct pt_regs *regs;
	void *image;
	struct image_header *header;
	struct image_call *call;
	u32 number; /* its index among the image's calls, with CALL_X32 */
	bool compat;
};

/* An argument, numbered from 1, where the kernel found it. */
static __always_inline u64 made_argument(struct made *m, u32 number)
{
	struct pt_regs *regs = m->regs;

	switch (number) {
	case 1:
		return m->compat ? (u32)BPF_CORE_READ(regs, bx) : BPF_CORE_READ(regs, di);
	case 2:
		return m->compat ? (u32)BPF_CORE_READ(regs, cx) : BPF_CORE_READ(regs, si);
	case 3:
		return m->compat ? (u32)BPF_CORE_READ(regs, dx) : BPF_CORE_READ(regs, dx);
	case 4:
		return m->compat ? (u32)BPF_CORE_READ(regs, si) : BPF_CORE_READ(regs, r10);
	case 5:
		return m->compat ? (u32)BPF_CORE_READ(regs, di) : BPF_CORE_READ(regs, r8);
	default:
		return m->compat ? (u32)BPF_CORE_READ(regs, bp) : 0;
	}
}

/* Finds the call that these registers are of; false when no rule names it. */
static __always_inline bool made_find(struct made *m, struct pt_regs *regs)
{
	struct task_struct *task = current_task();
	u32 number = TRUSTED(regs, orig_ax), ref;
	struct image_call *c;
	void *page;

	m->image = host_image();
	m->header = m->image ? image_head(m->image) : 0;
	if (!m->header || !m->header->calls)
		return false;
	m->regs = regs;
	m->compat = TRUSTED(task, thread_info.status) & TS_COMPAT;
	m->number = number;
	number &= ~CALL_X32;
	if (number >= CALLS_I386)
		return false;
	if (m->compat) {
		number += CALLS_I386;
		m->number = number;
	}
	ref = m->header->calls + number / 2;
	page = page_of(m->image, ref);
	if (!page)
		return false;
	c = unit(page, ref, 0);
	c += number & 1;
	m->call = c;
	return c->group || c->flags;
}

/* The sets of rules that the automata of the group say the path is in. */
static __always_inline void group_sets(struct scratch *s, struct image_group *group, u32 any)
{
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		s->sets[i] = 0;
	s->sets[AUTOMATA] = any;
	if (s->object[0].status != PATH_OK)
		return;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUTOMATA; i++) {
		if (!group->start[i])
			break;
		s->sets[i] = match_path(s, &s->object[0], group->start[i]);
	}
}

/* The class of the directories that the path in s->source lies in; 0 for none. */
static __always_inline u32 directories_class(struct scratch *s, u32 start)
{
	return start && s->source.status == PATH_OK ? match_path(s, &s->source, start) : 0;
}

/* A script's path into s->source, as long as it is known. */
static __always_inline void script_source(struct scratch *s, u64 hash)
{
	struct script_path *path = bpf_map_lookup_elem(&scripts, &hash);
	u64 length, at;

	s->source.status = PATH_NONE;
	if (!hash || !path)
		return;
	length = path->length;
	BOUND(length, 511);
	if (length > sizeof(path->path))
		return;
	at = PATH_END - length;
	s->source.start = at;
	BOUND(at, PATH_END - 1);
	if (!bpf_probe_read_kernel(&s->source.buffer[at], length, path->path))
		s->source.status = PATH_OK;
}

/* What the group's rules say of s->object[0] to the sources in s->classes, and to those known by the directories
 * that they lie in. Rules of this class have neither verdicts nor modifiers. */
OF_SCRATCH3(int, group_decide, u32, group, u32, executable, u32, script)
{
	struct image_header *h;
	void *image, *page;

	if (!s)
		return 0;
	image = image_judged(s, &h);
	page = image ? page_of(image, group) : 0;
	if (!page)
		return 0;
	group_sets(s, unit(page, group, 0), ((struct image_any *)unit(page, group, 1))->set);
	combine_sets(s, 0);
	s->chained = s->within[0] || s->within[1] || s->within[2] || s->within[3];
	if (!executable && !script && !s->chained)
		return 0;
	for (int i = 0; i < CHAIN_CLASSES + CHAIN; i++)
		s->classes[i] = 0;
	for (int i = 0; i < MIDDLES; i++)
		s->classes[CHAIN_CLASSES + i] = s->within[i];
	s->classes[0] = executable;
	s->classes[1] = script;
	combine_sets(s, 0);
	return 0;
}

/* The classes of the directories that the scripts of a chain lie in, into s->within. */
OF_SCRATCH1(int, chain_directories, u32, start)
{
	if (!s)
		return 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < MIDDLES; i++) {
		script_source(s, s->chain[i]);
		s->within[i] = directories_class(s, start);
	}
	return 0;
}

static __always_inline void call_attempt(struct made *m, struct scratch *s)
{
	u32 executable = 0, script = 0, start = m->header->directories, group = m->call->group;

	__builtin_memset(&s->result, 0, sizeof(s->result));
	s->image = m->header->id;
	s->mode = m->header->mode;
	s->again = 0;
	s->cursor.broken = 0;
	classify_current(s);
	for (int i = 0; i < MIDDLES; i++)
		s->within[i] = 0;
	if (start && s->chained)
		chain_directories(s, start);
	if (start) {
		if (executable_find(s, false))
			executable = directories_class(s, start);
		script_source(s, s->label.source[1]);
		script = directories_class(s, start);
	}
	group_decide(s, group, executable, script);
}

/* Whether any rule reports this call. */
static __noinline bool call_judge(struct made *m, struct scratch *s)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < JUDGE_ATTEMPTS; i++) {
		call_attempt(m, s);
		if (!s->again)
			break;
		if (!made_find(m, m->regs))
			return false;
	}
	/* Not the agent's own: of writing down what it is told it would be told again. */
	return s->result.audits[0] && !is_agent();
}

#endif
