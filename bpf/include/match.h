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

/* Position of the lowest byte that is not zero; x is not zero. */
static __always_inline u32 first_byte(u64 x)
{
	u32 n = 0;

	if (!(x & 0xffffffffULL)) {
		n = 4;
		x >>= 32;
	}
	if (!(x & 0xffff)) {
		n += 2;
		x >>= 16;
	}
	return x & 0xff ? n : n + 1;
}

/* How many bytes of the state's text the path repeats, at most count. */
static __always_inline u32 text_equal(struct object *o, u32 at32, void *page, u32 ref, u32 count)
{
	u64 at = at32, different;

	BOUND(at, PATH_END - 1);
	different = (load64(&o->buffer[at]) ^ *(u64 *)(unit(page, ref, 1) + 8)) & text_mask(count, 0);
	if (different)
		return first_byte(different);
	if (count <= 8)
		return count;
	different = (load64(&o->buffer[at + 8]) ^ *(u64 *)unit(page, ref, 2)) & text_mask(count, 8);
	if (different)
		return 8 + first_byte(different);
	if (count <= 16)
		return count;
	different = (load64(&o->buffer[at + 16]) ^ *(u64 *)(unit(page, ref, 2) + 8)) & text_mask(count, 16);
	if (different)
		return 16 + first_byte(different);
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

/* Classes of the sources by their hashes: index 0 and 1 by name, the rest by inode. */
struct classify {
	struct find find;
	struct scratch *scratch;
};

static long classify_step(u32 index, struct classify *c)
{
	u64 at = index;

	BOUND(at, 7);
	if (at >= SOURCES)
		return 1;
	table_find(&c->find, c->scratch->label.source[at]);
	c->scratch->classes[at] = at < 2 ? c->find.cursor->values[0] : c->find.cursor->values[1];
	return 0;
}

/* From s->label.source into s->classes. */
static __always_inline void classify(void *image, struct image_header *h, struct scratch *s)
{
	struct classify c = {
		.find = { .image = image, .table = h->sources, .mask = h->source_mask, .cursor = &s->cursor },
		.scratch = s,
	};

	bpf_loop(SOURCES, classify_step, &c, 0);
}

/* Every pair of (set of the object, class of the source) of one decision. */
struct combine {
	void *image;
	struct scratch *scratch;
	u32 attributes;
	u32 set;
	u32 class;
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

/* The row that a source class has for itself in a set, or 0. */
static __always_inline u32 exception_row(struct combine *c, u32 count)
{
	struct cursor *at = &c->scratch->cursor;

	at->low = 0;
	at->high = count;
	at->row = 0;
	if (c->class && count)
		bpf_loop(SEARCH_STEPS, search_step, c, 0);
	return at->row;
}

static long combine_step(u32 index, struct combine *c)
{
	u64 object = index / 8, source = index % 8;
	struct image_entry *e;
	struct image_set *s;
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
	combine_entry(&c->scratch->result, e->priority, e->rule, e->audits);
	if (e->conditions)
		combine_conditions(c->image, c->scratch, e->conditions);
	return 0;
}

struct posture_search {
	void *image;
	struct scratch *scratch;
	u32 table;
};

static long posture_step(u32 index, struct posture_search *p)
{
	u64 at = index, wanted;
	struct image_posture *found;
	u32 class, ref, posture;
	void *page;

	BOUND(at, 7);
	class = p->scratch->classes[at];
	/* The executable counts even when no rule knows it; the others when they are there. */
	if (at && !class)
		return 0;
	ref = p->table + class;
	page = page_of(p->image, ref);
	if (!page)
		return 1;
	found = unit(page, ref, 0);
	wanted = p->scratch->class;
	BOUND(wanted, 15);
	posture = found->classes[wanted];
	if (posture > p->scratch->cursor.posture)
		p->scratch->cursor.posture = posture;
	return 0;
}

static __noinline void decide_posture(void *image, struct image_header *h, struct scratch *s)
{
	struct posture_search p = { .image = image, .scratch = s, .table = h->postures };

	s->cursor.posture = POSTURE_NONE;
	bpf_loop(SOURCES, posture_step, &p, 0);
	if (s->cursor.posture == POSTURE_NONE)
		return;
	s->result.flags |= EVENT_POSTURE;
	if (s->cursor.posture == POSTURE_BLOCK)
		s->result.verdict = VERDICT_DENY;
	else
		s->result.flags |= EVENT_WOULD_DENY;
}

/* The sets that the object's name matches, one for each automaton, and the protected path that it is. */
struct names {
	struct match match;
	struct scratch *scratch;
	struct image_header *header;
};

static long names_step(u32 index, struct names *n)
{
	struct object *o = n->match.object;
	u64 at = index;
	struct image_set *s;
	void *page;

	BOUND(at, AUTOMATA - 1);
	n->match.cursor->state = class_of(n->header, n->scratch->class)->start[at];
	if (!n->match.cursor->state)
		return 1;
	n->match.cursor->at = o->start;
	n->match.cursor->set = 0;
	bpf_loop(MATCH_STEPS, match_step, &n->match, 0);
	if (!n->match.cursor->set)
		return 0;
	page = page_of(n->match.image, n->match.cursor->set);
	if (!page) {
		n->match.cursor->broken = 1;
		return 1;
	}
	s = unit(page, n->match.cursor->set, 0);
	if (s->mark)
		o->protects = s->mark;
	n->scratch->sets[at] = n->match.cursor->set;
	return 0;
}

static __noinline bool match_names(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct names n = {
		.match = { .image = image, .object = o, .cursor = &s->cursor },
		.scratch = s,
		.header = h,
	};

	bpf_loop(AUTOMATA, names_step, &n, 0);
	return !s->cursor.broken;
}

/* The sets of the protected paths that the object's inode is known by. */
struct marks_search {
	struct find find;
	struct scratch *scratch;
	struct object *object;
};

static long marks_step(u32 index, struct marks_search *m)
{
	u64 at = index;

	BOUND(at, OBJECT_MARKS - 1);
	table_find(&m->find, m->object->marks[at]);
	m->scratch->sets[AUTOMATA + at] =
		m->scratch->class == CLASS_PROCESS ? m->find.cursor->values[0] : m->find.cursor->values[1];
	return 0;
}

static __noinline void match_marks(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct marks_search m = {
		.find = { .image = image, .table = h->marks, .mask = h->mark_mask, .cursor = &s->cursor },
		.scratch = s,
		.object = o,
	};

	bpf_loop(OBJECT_MARKS, marks_step, &m, 0);
}

/* Decides s->class on object o for s->classes, into s->result. Answers false when the image is broken. Its
 * steps are functions of their own, so that what they keep is not on the stack while the rules are combined:
 * the kernel counts 512 bytes along the deepest chain of calls. */
static __always_inline bool decide(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct combine c = { .image = image, .scratch = s, .attributes = o->attributes };
	u32 any = 0;

	s->cursor.broken = 0;
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		s->sets[i] = 0;
	if (o->status == PATH_OK && s->lenient != LENIENT_NAME && !match_names(image, h, s, o))
		return false;
	if (o->status == PATH_NAMED)
		match_numbers(image, h, s, o);
	if (o->marks[0])
		match_marks(image, h, s, o);
	/* Most files are in no rule: then there is nothing to combine. */
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		any |= s->sets[i];
	if (any)
		bpf_loop((AUTOMATA + OBJECT_MARKS) * 8, combine_step, &c, 0);
	if (s->cursor.broken)
		return false;
	/* Mapping a library is not running it: no allow-list has to name it. */
	if (!s->result.priority && h->postures && !s->lenient &&
	    !(s->class == CLASS_PROCESS && o->attributes & ROW_MAPPED))
		decide_posture(image, h, s);
	return true;
}

#endif
