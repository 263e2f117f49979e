// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What takes part in a decision: the entries of rows, and the rules that do for some arguments only.
#ifndef MUSTER_CONDITIONS_H
#define MUSTER_CONDITIONS_H

#include "image.h"

/* Open addressing with at most TABLE_PROBES steps; entries are one unit, hash first, 0 is empty. */
struct find {
	void *image;
	u64 hash;
	u32 table;
	u32 mask;
	struct cursor *cursor;
};

static long find_step(u32 index, struct find *f)
{
	u32 ref = f->table + (((u32)f->hash + index) & f->mask);
	void *page = page_of(f->image, ref);
	struct image_source *found;

	if (!page)
		return 1;
	found = unit(page, ref, 0);
	if (found->hash == f->hash) {
		f->cursor->values[0] = found->class;
		f->cursor->values[1] = found->marked;
		return 1;
	}
	return !found->hash;
}

static __always_inline void table_find(struct find *f, u64 hash)
{
	f->cursor->values[0] = 0;
	f->cursor->values[1] = 0;
	f->hash = hash;
	if (hash && f->table)
		bpf_loop(TABLE_PROBES, find_step, f, 0);
}

static __always_inline void combine_audits(struct result *r, u32 list)
{
	for (u32 i = 0; i < AUDIT_LISTS; i++) {
		if (r->audits[i] == list)
			return;
		if (!r->audits[i]) {
			r->audits[i] = list;
			return;
		}
	}
	count(COUNT_AUDITS);
}

static __always_inline void combine_entry(struct result *r, u32 priority, u32 rule, u32 audits)
{
	if (audits)
		combine_audits(r, audits);
	if (!priority || priority < r->priority || (priority == r->priority && rule >= r->rule))
		return;
	r->priority = priority;
	r->rule = rule;
	r->verdict = priority & PRIORITY_DENY ? VERDICT_DENY : VERDICT_PERMIT;
}

/* Rules that fire for some arguments only. */
struct conditions {
	struct find find;
	struct scratch *scratch;
	u32 list;
};

static long listed_step(u32 index, struct conditions *c)
{
	struct arguments *a = &c->scratch->arguments;
	u64 at = index;

	if (index >= a->count)
		return 1;
	BOUND(at, ARGUMENTS - 1);
	table_find(&c->find, a->hashes[at]);
	if (c->find.cursor->values[0])
		return 0;
	a->listed = 0;
	return 1;
}

/* Whether every argument is in the list that starts at a reference. What is not known is not listed. */
static __always_inline bool all_listed(struct conditions *c, u32 args)
{
	struct arguments *a = &c->scratch->arguments;
	void *page = page_of(c->find.image, args);

	if (!page) {
		c->scratch->cursor.broken = 1;
		return false;
	}
	if (a->state != ARGUMENTS_KNOWN)
		return false;
	c->find.mask = ((struct image_args *)unit(page, args, 0))->mask;
	c->find.table = args + 1;
	a->listed = 1;
	bpf_loop(ARGUMENTS, listed_step, c, 0);
	return a->listed;
}

static long condition_step(u32 index, struct conditions *c)
{
	struct arguments *a = &c->scratch->arguments;
	u32 ref = c->list + 1 + index;
	struct image_condition *e;
	void *page = page_of(c->find.image, ref);
	bool permits;

	if (!page) {
		c->scratch->cursor.broken = 1;
		return 1;
	}
	e = unit(page, ref, 0);
	permits = e->priority && !(e->priority & PRIORITY_DENY);
	if (a->state == ARGUMENTS_UNREAD)
		a->state = ARGUMENTS_WANTED;
	if (e->priority)
		a->rule = e->rule;
	if (all_listed(c, e->args) == permits)
		combine_entry(&c->scratch->result, e->priority, e->rule, e->audits);
	return 0;
}

static __always_inline void combine_conditions(void *image, struct scratch *s, u32 list)
{
	struct conditions c = {
		.find = { .image = image, .cursor = &s->cursor },
		.scratch = s,
		.list = list,
	};
	void *page = page_of(image, list);

	if (page)
		bpf_loop(((struct image_conditions *)unit(page, list, 0))->count, condition_step, &c, 0);
	else
		s->cursor.broken = 1;
}

#endif
