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
	struct task_struct *task = bpf_get_current_task_btf();
	u32 number = regs->orig_ax, ref;
	struct image_call *c;
	void *page;

	m->image = host_image();
	m->header = m->image ? image_head(m->image) : 0;
	if (!m->header || !m->header->calls)
		return false;
	m->regs = regs;
	m->compat = task->thread_info.status & TS_COMPAT;
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

struct group_match {
	struct match match;
	struct scratch *scratch;
	struct image_group *group;
};

/* The set of rules that an automaton of the group says the path is in. */
static long group_step(u32 index, struct group_match *g)
{
	u64 at = index;

	BOUND(at, AUTOMATA - 1);
	g->match.cursor->state = g->group->start[at];
	if (!g->match.cursor->state)
		return 1;
	g->match.cursor->at = g->match.object->start;
	g->match.cursor->set = 0;
	bpf_loop(MATCH_STEPS, match_step, &g->match, 0);
	g->scratch->sets[at] = g->match.cursor->set;
	return 0;
}

static __noinline void group_sets(void *image, struct image_group *group, u32 any, struct scratch *s)
{
	struct group_match g = {
		.match = { .image = image, .object = &s->object[0], .cursor = &s->cursor },
		.scratch = s,
		.group = group,
	};

	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		s->sets[i] = 0;
	if (s->object[0].status == PATH_OK)
		bpf_loop(AUTOMATA, group_step, &g, 0);
	s->sets[AUTOMATA] = any;
}

/* The class of the directories that the path in s->source lies in; 0 for none. */
static __noinline u32 directories_class(void *image, u32 start, struct scratch *s)
{
	struct match m = { .image = image, .object = &s->source, .cursor = &s->cursor };

	if (!start || s->source.status != PATH_OK)
		return 0;
	s->cursor.state = start;
	s->cursor.at = s->source.start;
	s->cursor.set = 0;
	bpf_loop(MATCH_STEPS, match_step, &m, 0);
	return s->cursor.set;
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

/* The audits of one set for one source. Rules of this class have neither verdicts nor modifiers: every entry of a row
 * is the same. */
static long report_step(u32 index, struct combine *c)
{
	u64 object = index / 8, source = index % 8;
	void *page;
	u32 row;

	BOUND(object, 7);
	BOUND(source, 7);
	c->set = c->scratch->sets[object];
	c->class = c->scratch->classes[source];
	/* The executable always counts, if only as "no known source"; the others when they are there. */
	if (source >= SOURCES || !c->set || (source && !c->class))
		return 0;
	page = page_of(c->image, c->set);
	if (!page)
		return 1;
	row = exception_row(c, ((struct image_set *)unit(page, c->set, 0))->count);
	if (!row && source < 2)
		row = ((struct image_set *)unit(page, c->set, 0))->row;
	page = row ? page_of(c->image, row) : 0;
	if (page)
		combine_entry(&c->scratch->result, 0, 0, ((struct image_entry *)unit(page, row, 0))->audits);
	return 0;
}

static __noinline void report_all(void *image, struct scratch *s)
{
	struct combine c = { .image = image, .scratch = s };

	bpf_loop((AUTOMATA + 1) * 8, report_step, &c, 0);
}

/* What the group's rules say of s->object[0] to the sources in s->classes, and to those known by the directories
 * that they lie in. */
static __noinline void group_decide(void *image, u32 group, struct scratch *s, u32 executable, u32 script)
{
	void *page = page_of(image, group);

	if (!page)
		return;
	group_sets(image, unit(page, group, 0), ((struct image_any *)unit(page, group, 1))->set, s);
	report_all(image, s);
	if (!executable && !script)
		return;
	for (int i = 0; i < SOURCES; i++)
		s->classes[i] = 0;
	s->classes[0] = executable;
	s->classes[1] = script;
	report_all(image, s);
}

/* Whether any rule reports this call. */
static __noinline bool call_judge(struct made *m, struct scratch *s)
{
	u32 executable = 0, script = 0, start = m->header->directories;

	s->image = m->header->id;
	s->mode = m->header->mode;
	s->cursor.broken = 0;
	classify_current(m->image, m->header, s);
	if (start) {
		if (executable_of(bpf_get_current_task_btf(), &s->source))
			executable = directories_class(m->image, start, s);
		script_source(s, s->label.source[1]);
		script = directories_class(m->image, start, s);
	}
	group_decide(m->image, m->call->group, s, executable, script);
	/* Not the agent's own: of writing down what it is told it would be told again. */
	return s->result.audits[0] && !is_agent();
}

#endif
