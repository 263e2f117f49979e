// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The decision: one automaton over the path, one row per (set of rules, source class), the highest
// priority over every name and mark of the object and of the source, then the posture. The image is taken
// once per decision, so a decision sees one ruleset. Go's interpreter of the same image is
// enforce/bpflsm/interpret.go; a test compares the two and both with enforce.Ruleset.Decide.
#ifndef MUSTER_MATCH_H
#define MUSTER_MATCH_H

#include "walk.h"
#include "conditions.h"
#include "names.h"

#define MATCH_STEPS 4104

struct match {
	void *image;
	struct object *object;
	struct cursor *cursor;
};

static __always_inline u64 text_mask(u32 count, u32 before)
{
	if (count >= before + 8)
		return ~0ULL;
	return count > before ? (1ULL << ((count - before) * 8)) - 1 : 0;
}

/* How many bytes of the state's text the path repeats, at most count. */
static __always_inline u32 text_equal(struct object *o, u32 at32, void *page, u32 ref, u32 count)
{
	u64 at = at32, different;

	BOUND(at, PATH_END - 1);
	different = (load64(&o->buffer[at]) ^ *(u64 *)(unit(page, ref, 1) + 8)) & text_mask(count, 0);
	if (different)
		return first_bit(different) / 8;
	if (count <= 8)
		return count;
	different = (load64(&o->buffer[at + 8]) ^ *(u64 *)unit(page, ref, 2)) & text_mask(count, 8);
	if (different)
		return 8 + first_bit(different) / 8;
	if (count <= 16)
		return count;
	different = (load64(&o->buffer[at + 16]) ^ *(u64 *)(unit(page, ref, 2) + 8)) & text_mask(count, 16);
	if (different)
		return 16 + first_bit(different) / 8;
	return count;
}

static __always_inline void match_tail(struct match *m, struct image_state *s, void *page)
{
	u32 left = PATH_END - m->cursor->at;
	u32 count = s->count;
	u32 equal = text_equal(m->object, m->cursor->at, page, m->cursor->state, count);
	u64 at;

	if (equal < count && equal < left) {
		at = m->cursor->at + equal;
		BOUND(at, PATH_END - 1);
		m->cursor->at += equal + 1;
		m->cursor->state = m->object->buffer[at] == '/' ? *(u32 *)unit(page, m->cursor->state, 1) : s->other;
	} else if (count > left) {
		m->cursor->state = 0; /* the path ends within the text: nothing accepts there */
	} else {
		m->cursor->at += count;
		m->cursor->state = s->word;
	}
}
static __always_inline void match_sparse(struct match *m, struct image_state *s, void *page, u8 byte)
{
	u32 *target = unit(page, m->cursor->state, 1);
	u32 keys = s->word;

	m->cursor->at++;
	if ((u8)keys == byte)
		m->cursor->state = target[0];
	else if ((u8)(keys >> 8) == byte)
		m->cursor->state = target[1];
	else if ((u8)(keys >> 16) == byte)
		m->cursor->state = target[2];
	else if ((u8)(keys >> 24) == byte)
		m->cursor->state = target[3];
	else
		m->cursor->state = s->other;
}

static __always_inline void match_dense(struct match *m, struct image_state *s, void *page, u8 byte)
{
	u64 in;

	m->cursor->at++;
	if (byte < s->lo || byte > s->hi) {
		m->cursor->state = s->other;
		return;
	}
	in = ((m->cursor->state + 1) % UNITS_PER_PAGE) * IMAGE_UNIT + (u32)(byte - s->lo) * 4;
	BOUND(in, IMAGE_PAGE - 4);
	m->cursor->state = *(u32 *)(page + in);
}

static long match_step(u32 index, struct match *m)
{
	void *page = page_of(m->image, m->cursor->state);
	struct image_state *s;
	u64 at = m->cursor->at;
	u8 byte;

	if (!page) {
		m->cursor->broken = 1;
		return 1;
	}
	s = unit(page, m->cursor->state, 0);
	if (at >= PATH_END) {
		m->cursor->set = s->accept;
		return 1;
	}
	BOUND(at, PATH_END - 1);
	byte = m->object->buffer[at];
	switch (s->kind) {
	case STATE_LEAF:
		m->cursor->state = 0;
		break;
	case STATE_TAIL:
		match_tail(m, s, page);
		break;
	case STATE_SPARSE:
		match_sparse(m, s, page, byte);
		break;
	case STATE_DENSE:
		match_dense(m, s, page, byte);
		break;
	default:
		m->cursor->broken = 1;
		return 1;
	}
	return m->cursor->state == 0;
}

LOOPED_LONG(match_step, struct match, (u32 index, u32 self), (index, self), (of.image && of.object && of.cursor),
	    (index, of->object->cursor.self),
	    { .image = image_again(self / 4), .object = object_at(self), .cursor = cursor_again(self / 4) })

/* The set of rules that the automaton from start on accepts the path of o with, 0 for none; also in s->cursor.set. */
OF_BOTH1(int, match_path, u32, start)
{
	struct match m = { .object = o };
	struct image_header *h;

	if (!s || !o)
		return 0;
	s->cursor.set = 0;
	m.image = image_judged(s, &h);
	if (!m.image)
		return 0;
	m.cursor = &s->cursor;
	s->cursor.state = start;
	s->cursor.at = o->start;
	LOOP_LONG(MATCH_STEPS, match_step, &m);
	return s->cursor.set;
}

/* From s->chain into s->classes: the MIDDLES by name, their marks by inode. */
OF_SCRATCH(int, classify_chain)
{
	struct image_header *h;

	if (!s || !image_judged(s, &h))
		return 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < CHAIN; i++) {
		table_find(s, h->sources, h->source_mask, s->chain[i]);
		s->classes[CHAIN_CLASSES + i] = s->cursor.values[i >= MIDDLES];
	}
	return 0;
}

/* From s->label.source into s->classes (index 0 and 1 by name, the rest by inode), and what these are concerned with. */
OF_SCRATCH(int, classify)
{
	struct image_header *h;
	void *image;

	if (!s)
		return 0;
	image = image_judged(s, &h);
	if (!image)
		return 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < 2; i++) {
		table_find(s, h->sources, h->source_mask, s->label.source[i]);
		s->classes[i] = s->cursor.values[0];
	}
#pragma clang loop unroll(disable)
	for (u64 i = 2; i < SOURCES; i++) {
		table_find(s, h->sources, h->source_mask, s->label.source[i]);
		s->classes[i] = s->cursor.values[1];
	}
	if (s->chained)
		classify_chain(s);
	concern(s);
	return 0;
}

/* Every pair of (set of the object, class of the source) of one decision. */
struct combine {
	void *image;
	struct scratch *scratch;
	u32 attributes;
	u32 set;
	u32 class;
	u32 first; /* of the classes that are looked at */
};

static long search_step(u32 index, struct combine *c)
{
	struct cursor *at = &c->scratch->cursor;
	u32 middle = (at->low + at->high) / 2;
	u32 ref = c->set + 1 + middle / 2;
	struct image_exception *e;
	void *page;

	if (at->low >= at->high)
		return 1;
	page = page_of(c->image, ref);
	if (!page)
		return 1;
	e = unit(page, ref, 0);
	e += middle & 1;
	if (e->class == c->class) {
		at->row = e->row;
		return 1;
	}
	if (e->class < c->class)
		at->low = middle + 1;
	else
		at->high = middle;
	return 0;
}

LOOPED(search_step, struct combine, (u32 index, u32 slot, u32 set, u32 class), (of.image && of.scratch),
       (index, of->scratch->slot, of->set, of->class),
       { .image = image_again(slot), .scratch = scratch_again(slot), .set = set, .class = class })

/* The row that a source class has for itself in a set, or 0. */
static __always_inline u32 exception_row(struct combine *c, u32 count)
{
	struct cursor *at = &c->scratch->cursor;

	at->low = 0;
	at->high = count;
	at->row = 0;
	if (c->class && count)
		LOOP(SEARCH_STEPS, search_step, c);
	return at->row;
}

static long combine_step(u32 index, struct combine *c)
{
	u64 object = index / 8, source = c->first + index % 8;
	struct image_entry *e;
	struct image_set *s;
	void *page;
	u32 row;

	BOUND(object, 7);
	BOUND(source, 31);
	c->set = c->scratch->sets[object];
	c->class = c->scratch->classes[source];
	/* The executable always counts, if only as "no known source"; the others when they are there. */
	if ((source >= SOURCES && source < CHAIN_CLASSES) || !c->set || (source && !c->class))
		return 0;
	page = page_of(c->image, c->set);
	if (!page) {
		c->scratch->cursor.broken = 1;
		return 1;
	}
	s = unit(page, c->set, 0);
	row = exception_row(c, s->count);
	if (!row && source < 2)
		row = s->row;
	if (!row)
		return 0;
	row += c->attributes & (ROW_ENTRIES - 1);
	page = page_of(c->image, row);
	if (!page) {
		c->scratch->cursor.broken = 1;
		return 1;
	}
	e = unit(page, row, 0);
	combine_entry(c->scratch, e->priority, e->rule, e->audits);
	if (e->conditions) {
		u64 at = c->scratch->conditional++;

		BOUND(at, CONDITIONAL - 1);
		c->scratch->conditional_lists[at] = e->conditions;
	}
	return 0;
}

LOOPED(combine_step, struct combine, (u32 index, u32 slot, u32 attributes, u32 first), (of.image && of.scratch),
       (index, of->scratch->slot, of->attributes, of->first),
       { .image = image_again(slot), .scratch = scratch_again(slot), .attributes = attributes, .first = first })

/* The same for the classes of the chain, eight at a time. */
static __always_inline void combine_chain(struct combine *c)
{
	c->first = CHAIN_CLASSES;
	LOOP((AUTOMATA + OBJECT_MARKS) * 8, combine_step, c);
	c->first = CHAIN_CLASSES + 8;
	LOOP((AUTOMATA + OBJECT_MARKS) * 8, combine_step, c);
}

/* Decides by the rules of s->sets for s->classes, into s->result. */
OF_SCRATCH1(int, combine_sets, u32, attributes)
{
	struct combine c = { .scratch = s, .attributes = attributes };
	struct image_header *h;

	if (!s)
		return 0;
	c.image = image_judged(s, &h);
	if (!c.image)
		return 0;
	LOOP((AUTOMATA + OBJECT_MARKS) * 8, combine_step, &c);
	if (s->chained)
		combine_chain(&c);
	return 0;
}

static __always_inline void decide_posture(struct scratch *s)
{
	u32 posture = posture_in(s->postures, s->class);

	if (posture & POSTURE_DRY)
		dry_postures(s);
	if (!(posture & (POSTURE_AUDIT | POSTURE_BLOCK)))
		return;
	s->result.flags |= EVENT_POSTURE;
	if (posture & POSTURE_BLOCK)
		s->result.verdict = VERDICT_DENY;
	else
		s->result.flags |= EVENT_WOULD_DENY;
}

/* The sets that the object's name matches, one for each automaton, and the protected path that it is. */
static __always_inline void match_names(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct image_class *class = class_of(h, s->class);
	struct image_set *found;
	void *page;
	u32 set;

#pragma clang loop unroll(disable)
	for (u64 i = 0; i < AUTOMATA; i++) {
		if (!class->start[i])
			break;
		set = match_path(s, o, class->start[i]);
		if (!set)
			continue;
		page = page_of(image, set);
		if (!page) {
			s->cursor.broken = 1;
			break;
		}
		found = unit(page, set, 0);
		if (found->mark)
			o->protects = found->mark;
		s->sets[i] = set;
	}
}

/* The sets of the protected paths that the object's inode is known by. */
static __always_inline void match_marks(struct image_header *h, struct scratch *s, struct object *o)
{
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < OBJECT_MARKS; i++) {
		if (!o->marks[i])
			break;
		table_find(s, h->marks, h->mark_mask, o->marks[i]);
		s->sets[AUTOMATA + i] = s->class == CLASS_PROCESS ? s->cursor.values[0] : s->cursor.values[1];
	}
}

/* Finds the sets of rules that o falls under, which has a path or an inode, into s->sets. Answers whether there is one:
 * most files are in no rule. */
OF_BOTH(int, find_sets)
{
	struct image_header *h;
	void *image;
	u32 any = 0;

	if (!s || !o)
		return 0;
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		s->sets[i] = 0;
	image = image_judged(s, &h);
	if (!image)
		return 0;
	if (o->status == PATH_OK && s->lenient != LENIENT_NAME)
		match_names(image, h, s, o);
	if (o->marks[0])
		match_marks(h, s, o);
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		any |= s->sets[i];
	return any != 0;
}

/* What a decision can come to. The verifier reads no more of the steps than it needs. */
enum deciding {
	DECIDING_PATHS, /* of objects with a path, by rules without conditions */
	DECIDING_CONDITIONS, /* of objects with a path */
	DECIDING_NUMBERS, /* of objects without one */
	DECIDING_PACKETS, /* of a flow or a question, which are written as paths; there is no caller to ask for */
};

DECLARE_OF_SCRATCH(int, judge_sources);

/* A new object is its maker's. */
static __always_inline void attributes_ask(struct object *o)
{
	struct task_struct *task = LOOSE(current_task());
	struct inode *inode = (struct inode *)o->inode;

	if (!o->unasked)
		return;
	o->unasked = 0;
	if (!inode || READ(inode, i_uid.val) == TRUSTED(task, cred, fsuid.val))
		o->attributes |= ROW_OWNER;
	if (TRUSTED(task, signal, tty))
		o->attributes |= ROW_TERMINAL;
}

/* Decides s->class on object o for s->classes, into s->result. Of a file that no rule names nobody asks who the caller is,
 * unless it may have an allow-list. When the image does not read, s->cursor.broken says so;
 * when it is another one by now, s->again. */
static __always_inline void decide(struct scratch *s, struct object *o, enum deciding what)
{
	u32 found;

	s->cursor.broken = 0;
	s->conditional = 0;
	found = what == DECIDING_NUMBERS ? match_numbers(s, o->names) : find_sets(s, o);
	if (what == DECIDING_PATHS) {
		o->unsaid = !found;
		if (!s->sourced && (found || s->flags & CLASS_POSTURE))
			judge_sources(s);
	}
	if (found && !s->cursor.broken) {
		if (what == DECIDING_PATHS || what == DECIDING_CONDITIONS)
			attributes_ask(o);
		combine_sets(s, o->attributes);
	}
	/* Neither depends anything on more than the path, nor is there an allow-list. */
	if (!s->conditional && (!s->sourced || !s->postures))
		return;
	if (s->conditional) {
		if (s->flags & CLASS_DRY)
			dry_lists(s);
		if (what == DECIDING_CONDITIONS)
			combine_conditions(s);
		else if (!(s->flags & CLASS_DRY))
			s->cursor.broken = 1;
	}
	/* Mapping a library is not running it: no allow-list has to name it. */
	if (!s->cursor.broken && !s->result.priority && s->sourced && s->postures && !s->lenient &&
	    !(s->class == CLASS_PROCESS && o->attributes & ROW_MAPPED))
		decide_posture(s);
	if (s->result.flags & EVENT_DRY)
		dry_end(s);
}

#endif
