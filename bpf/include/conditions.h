// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What takes part in a decision: the entries of rows, and the rules that do for some arguments only.
#ifndef MUSTER_CONDITIONS_H
#define MUSTER_CONDITIONS_H

#include "dry.h"

/* Looks for a hash in a table with open addressing and at most TABLE_PROBES steps; entries are one unit, hash first, 0
 * is empty. What stands there goes into s->cursor.values. */
OF_SCRATCH3(int, table_find, u32, table, u32, mask, u64, hash)
{
	struct image_source *found;
	struct image_header *h;
	void *image, *page;
	u32 ref;

	if (!s)
		return 0;
	s->cursor.values[0] = 0;
	s->cursor.values[1] = 0;
	if (!hash || !table)
		return 0;
	image = image_judged(s, &h);
	if (!image)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TABLE_PROBES; i++) {
		ref = table + (((u32)hash + i) & mask);
		page = page_of(image, ref);
		if (!page)
			break;
		found = unit(page, ref, 0);
		if (!found->hash)
			break;
		if (found->hash == hash) {
			s->cursor.values[0] = found->class;
			s->cursor.values[1] = found->marked;
			break;
		}
	}
	return 0;
}

static __always_inline void combine_audits(struct result *r, u32 list)
{
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUDIT_LISTS; i++) {
		if (r->audits[i] == list)
			return;
		if (!r->audits[i]) {
			r->audits[i] = list;
			return;
		}
	}
	count(COUNT_AUDITS);
}

/* An entry of a row, or one with a condition that is met, takes part. */
OF_SCRATCH3(int, combine_entry, u32, priority, u32, rule, u32, audits)
{
	struct result *r;

	if (!s)
		return 0;
	r = &s->result;
	if (audits)
		combine_audits(r, audits);
	if (!priority || priority < r->priority || (priority == r->priority && rule >= r->rule))
		return 0;
	r->priority = priority;
	r->rule = rule;
	r->verdict = priority & PRIORITY_DENY ? VERDICT_DENY : VERDICT_PERMIT;
	return 0;
}

/* The most of a decision; more, as no ruleset has them, count as an image that does not read. */
#ifdef OLDER_KERNEL
#define CONDITION_STEPS (1 << 16) /* the verifier follows a part of them */
#else
#define CONDITION_STEPS (1 << 20)
#endif

/* Rules that fire for some arguments only. */
struct conditions {
	void *image;
	struct scratch *scratch;
	u32 table;
	u32 mask;
};

static long listed_step(u32 index, struct conditions *c)
{
	struct scratch *s = c->scratch;
	u64 at = index;

	if (index >= s->arguments.count)
		return 1;
	BOUND(at, ARGUMENTS - 1);
	table_find(s, c->table, c->mask, s->arguments.hashes[at]);
	if (s->cursor.values[0])
		return 0;
	s->arguments.listed = 0;
	return 1;
}

LOOPED(listed_step, struct conditions, (u32 index, u32 slot, u32 table, u32 mask), of.scratch,
       (index, of->scratch->slot, of->table, of->mask),
       { .scratch = scratch_again(slot), .table = table, .mask = mask })

/* Whether every argument is in the list that starts at a reference. What is not known is not listed. */
static __always_inline bool all_listed(struct conditions *c, u32 args)
{
	struct arguments *a = &c->scratch->arguments;
	void *page = page_of(c->image, args);

	if (!page) {
		c->scratch->cursor.broken = 1;
		return false;
	}
	if (a->state != ARGUMENTS_KNOWN)
		return false;
	c->mask = ((struct image_args *)unit(page, args, 0))->mask;
	c->table = args + 1;
	a->listed = 1;
	LOOP(ARGUMENTS, listed_step, c);
	return a->listed;
}

static __always_inline void condition_meets(struct conditions *c, struct image_condition *e)
{
	struct scratch *s = c->scratch;
	struct arguments *a = &s->arguments;
	bool listed = all_listed(c, e->args), permits, dry;

	if (a->state == ARGUMENTS_UNREAD)
		a->state = ARGUMENTS_WANTED;
	permits = e->priority && !(e->priority & PRIORITY_DENY);
	dry = e->priority & PRIORITY_DRY;
	if (e->priority && !dry)
		a->rule = e->rule;
	if (listed != permits)
		return;
	if (dry)
		dry_add(s, permits ? 0 : e->priority & ~PRIORITY_DRY, e->rule, e->audits);
	else
		combine_entry(s, e->priority, e->rule, e->audits);
}

/* One condition of those in the lists that the rows led to; s->cursor.low is the list, .high the condition in it. */
static long condition_step(u32 index, struct conditions *c)
{
	struct scratch *s = c->scratch;
	u64 list = s->cursor.low;
	u32 ref, number;
	void *page;

	if (s->cursor.low >= s->conditional)
		return 1;
	BOUND(list, CONDITIONAL - 1);
	ref = s->conditional_lists[list];
	number = s->cursor.high++;
	page = page_of(c->image, ref);
	if (page && number >= ((struct image_conditions *)unit(page, ref, 0))->count) {
		s->cursor.low++;
		s->cursor.high = 0;
		return 0;
	}
	ref += 1 + number;
	page = page ? page_of(c->image, ref) : 0;
	if (!page) {
		s->cursor.broken = 1;
		return 1;
	}
	condition_meets(c, unit(page, ref, 0));
	return 0;
}

LOOPED_LONG(condition_step, struct conditions, (u32 index, u32 slot), (index, slot), (of.image && of.scratch),
	    (index, of->scratch->slot), { .image = image_again(slot), .scratch = scratch_again(slot) })

/* Decides by the rules with conditions that the rows led to. */
OF_SCRATCH(int, combine_conditions)
{
	struct conditions c = { .scratch = s };
	struct image_header *h;

	if (!s)
		return 0;
	s->cursor.low = 0;
	s->cursor.high = 0;
	c.image = image_judged(s, &h);
	if (c.image)
		LOOP_LONG(CONDITION_STEPS, condition_step, &c);
	if (s->cursor.low < s->conditional)
		s->cursor.broken = 1;
	return 0;
}

#endif
