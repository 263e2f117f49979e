// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Dry runs: who among the policies in audit would have denied what is permitted. The rows tell which of their rules fire,
// and the postures which have an allow-list. What comes of it is different for each policy, because each is tried alone:
// the kernel tells the operations that some policy may have denied, and with what; enforce.Ruleset.DryRuns says which.
// In a ruleset without such a policy nothing of this runs.
#ifndef MUSTER_DRY_H
#define MUSTER_DRY_H

#include "image.h"

/* Puts a list, or what was decided, behind those that an event names. */
OF_SCRATCH1(int, dry_tell, u32, list)
{
	if (!s)
		return 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUDIT_LISTS; i++) {
		if (!s->result.audits[i]) {
			s->result.audits[i] = list;
			return 0;
		}
	}
	count(COUNT_AUDITS);
	return 0;
}

/* Rules of policies in dry run fire, or their allow-lists hold. Priority: the greatest that would deny, or 0. */
OF_SCRATCH3(int, dry_add, u32, priority, u32, policies, u32, list)
{
	if (!s)
		return 0;
	if (!(s->result.flags & EVENT_DRY)) {
		s->result.flags |= EVENT_DRY;
		__builtin_memset(&s->dry, 0, sizeof(s->dry));
	}
	s->dry.fired |= policies;
	if (priority > s->dry.priority)
		s->dry.priority = priority;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUDIT_LISTS; i++) {
		if (s->dry.lists[i] == list)
			return 0;
		if (!s->dry.lists[i]) {
			s->dry.lists[i] = list;
			return 0;
		}
	}
	count(COUNT_AUDITS);
	return 0;
}

struct drying {
	void *image;
	struct scratch *scratch;
};

static long dry_step(u32 index, struct drying *d)
{
	struct scratch *s = d->scratch;
	struct image_conditions *c;
	u64 at = index;
	void *page;
	u32 ref;

	if (index >= s->conditional)
		return 1;
	BOUND(at, CONDITIONAL - 1);
	ref = s->conditional_lists[at];
	page = page_of(d->image, ref);
	if (!page) {
		s->cursor.broken = 1;
		return 1;
	}
	c = unit(page, ref, 0);
	if (c->dry)
		dry_add(s, c->priority, c->policies, c->dry);
	return 0;
}

LOOPED(dry_step, struct drying, (u32 index, u32 slot), (of.image && of.scratch), (index, of->scratch->slot),
       { .image = image_again(slot), .scratch = scratch_again(slot) })

/* What the rows led to that fires for any arguments. */
OF_SCRATCH(int, dry_lists)
{
	struct drying d = { .scratch = s };
	struct image_header *h;

	if (!s)
		return 0;
	d.image = image_judged(s, &h);
	if (d.image)
		LOOP(CONDITIONAL, dry_step, &d);
	return 0;
}

/* The allow-lists of policies in dry run that hold for one of the caller's sources: they deny unless a rule of the policy's
 * own fires. */
OF_SCRATCH1(int, dry_posture, u32, source)
{
	struct image_posture *p;
	struct image_header *h;
	struct image_dry *dry;
	void *image, *page;
	u32 ref, class;
	u64 at = source;

	if (!s)
		return 0;
	BOUND(at, 31);
	class = s->classes[at];
	/* The executable always counts, if only as "no known source"; the others when they are there. */
	if (at && !class)
		return 0;
	image = image_judged(s, &h);
	if (!image || !h->postures)
		return 0;
	page = page_of(image, h->postures + class);
	if (!page)
		return 0;
	p = unit(page, h->postures + class, 0);
	if (!p->dry)
		return 0;
	ref = p->dry + s->class / 2;
	page = page_of(image, ref);
	if (!page)
		return 0;
	dry = unit(page, ref, 0);
	dry += s->class & 1;
	if (dry->policies & ~(s->result.flags & EVENT_DRY ? s->dry.fired : 0))
		dry_add(s, 1, 0, dry->list);
	return 0;
}

/* What they do with what no rule in force matches. Whether a source counts is asked behind the call: here each question
 * would double the verifier's ways. */
OF_SCRATCH(int, dry_postures)
{
	if (!s)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SOURCES; i++)
		dry_posture(s, i);
	if (!s->chained)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = CHAIN_CLASSES; i < CHAIN_CLASSES + CHAIN; i++)
		dry_posture(s, i);
	return 0;
}

/* The end of an object's decision: what nobody in dry run would have denied is not told. */
OF_SCRATCH(int, dry_end)
{
	if (!s)
		return 0;
	if (s->cursor.broken || s->result.verdict == VERDICT_DENY || s->dry.priority <= s->result.priority) {
		s->result.flags &= ~EVENT_DRY;
		return 0;
	}
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUDIT_LISTS; i++) {
		if (!s->dry.lists[i])
			break;
		dry_tell(s, s->dry.lists[i] | LIST_DRY);
	}
	dry_tell(s, LIST_DECIDED | s->result.rule);
	return 0;
}

/* What could not be built is denied where a policy has an Allow or a Block of the class. */
OF_SCRATCH(int, dry_unbuildable)
{
	struct image_header *h;
	u32 list;

	if (!s || !image_judged(s, &h))
		return 0;
	list = class_of(h, s->class)->dry;
	if (list) {
		s->result.flags |= EVENT_DRY;
		dry_tell(s, list | LIST_DRY);
		dry_tell(s, LIST_DECIDED | LIST_UNBUILDABLE);
	}
	return 0;
}

/* Whether there is anything to tell. What the agent does it may do, whatever is enforced. */
OF_SCRATCH1(int, dry_speaks, bool, agent)
{
	u32 list;

	if (!s)
		return 0;
	if (!(s->result.flags & EVENT_DRY) || !agent)
		return 1;
	s->result.flags &= ~EVENT_DRY;
	if (s->result.flags)
		return 1;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUDIT_LISTS; i++) {
		list = s->result.audits[i];
		if (list && !(list & (LIST_DRY | LIST_DECIDED)))
			return 1;
	}
	return 0;
}

#endif
