// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The decision: one automaton over the path, one row per (set of rules, source class), the highest
// priority over every name and mark of the object and of the source, then the posture. The image is taken
// once per decision, so a decision sees one ruleset. Go's interpreter of the same image is
// enforce/bpflsm/interpret.go; a test compares the two and both with enforce.Ruleset.Decide.
#ifndef MUSTER_MATCH_H
#define MUSTER_MATCH_H

#include "walk.h"

#define MATCH_STEPS 4104

/* The unit that a reference names, on its page. */
static __always_inline void *unit(void *page, u32 ref, u32 plus)
{
	u64 at = ref + plus;

	BOUND(at, UNITS_PER_PAGE - 1);
	return page + at * IMAGE_UNIT;
}

static __always_inline void *page_of(void *image, u32 ref)
{
	u32 page = ref / UNITS_PER_PAGE;

	return bpf_map_lookup_elem(image, &page);
}

static __always_inline struct image_header *image_head(void *image)
{
	struct image_header *h = page_of(image, 0);

	return h && h->magic == IMAGE_MAGIC && h->layout == IMAGE_LAYOUT ? h : 0;
}

struct match {
	void *image;
	struct object *object;
	u32 state;
	u32 at; /* next byte of the path */
	u32 set;
	u32 broken;
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
	different = (*(u64 *)&o->buffer[at] ^ *(u64 *)(unit(page, ref, 1) + 8)) & text_mask(count, 0);
	if (different)
		return first_byte(different);
	if (count <= 8)
		return count;
	different = (*(u64 *)&o->buffer[at + 8] ^ *(u64 *)unit(page, ref, 2)) & text_mask(count, 8);
	if (different)
		return 8 + first_byte(different);
	if (count <= 16)
		return count;
	different = (*(u64 *)&o->buffer[at + 16] ^ *(u64 *)(unit(page, ref, 2) + 8)) & text_mask(count, 16);
	if (different)
		return 16 + first_byte(different);
	return count;
}

static __always_inline void match_tail(struct match *m, struct image_state *s, void *page)
{
	u32 left = PATH_END - m->at;
	u32 count = s->count;
	u32 equal = text_equal(m->object, m->at, page, m->state, count);
	u64 at;

	if (equal < count && equal < left) {
		at = m->at + equal;
		BOUND(at, PATH_END - 1);
		m->at += equal + 1;
		m->state = m->object->buffer[at] == '/' ? *(u32 *)unit(page, m->state, 1) : s->other;
	} else if (count > left) {
		m->state = 0; /* the path ends within the text: nothing accepts there */
	} else {
		m->at += count;
		m->state = s->word;
	}
}

static __always_inline void match_sparse(struct match *m, struct image_state *s, void *page, u8 byte)
{
	u32 *target = unit(page, m->state, 1);
	u32 keys = s->word;

	m->at++;
	if ((u8)keys == byte)
		m->state = target[0];
	else if ((u8)(keys >> 8) == byte)
		m->state = target[1];
	else if ((u8)(keys >> 16) == byte)
		m->state = target[2];
	else if ((u8)(keys >> 24) == byte)
		m->state = target[3];
	else
		m->state = s->other;
}

static __always_inline void match_dense(struct match *m, struct image_state *s, void *page, u8 byte)
{
	u64 in;

	m->at++;
	if (byte < s->lo || byte > s->hi) {
		m->state = s->other;
		return;
	}
	in = ((m->state + 1) % UNITS_PER_PAGE) * IMAGE_UNIT + (u32)(byte - s->lo) * 4;
	BOUND(in, IMAGE_PAGE - 4);
	m->state = *(u32 *)(page + in);
}

static long match_step(u32 index, struct match *m)
{
	void *page = page_of(m->image, m->state);
	struct image_state *s;
	u64 at = m->at;
	u8 byte;

	if (!page) {
		m->broken = 1;
		return 1;
	}
	s = unit(page, m->state, 0);
	if (at >= PATH_END) {
		m->set = s->accept;
		return 1;
	}
	BOUND(at, PATH_END - 1);
	byte = m->object->buffer[at];
	switch (s->kind) {
	case STATE_LEAF:
		m->state = 0;
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
		m->broken = 1;
		return 1;
	}
	return m->state == 0;
}

/* The set of rules that the object's name matches; 0 when none does. */
static __always_inline u32 match_name(void *image, struct object *o, u32 start, u32 *broken)
{
	struct match m = { .image = image, .object = o, .state = start, .at = o->start };

	if (start)
		bpf_loop(MATCH_STEPS, match_step, &m, 0);
	*broken |= m.broken;
	return m.set;
}

/* Open addressing with at most TABLE_PROBES steps; entries are one unit, hash first, 0 is empty. */
static __always_inline void *table_find(void *image, u32 table, u32 mask, u64 hash)
{
	if (!hash || !table)
		return 0;
	for (u32 i = 0; i < TABLE_PROBES; i++) {
		u32 ref = table + (((u32)hash + i) & mask);
		void *page = page_of(image, ref);
		u64 *found;

		if (!page)
			return 0;
		found = unit(page, ref, 0);
		if (*found == hash)
			return found;
		if (!*found)
			return 0;
	}
	return 0;
}

/* Classes of the sources by their hashes: index 0 and 1 by name, the rest by inode. */
static __always_inline void classify(void *image, struct image_header *h, const u64 *hashes, u32 *classes)
{
	for (u32 i = 0; i < SOURCES; i++) {
		struct image_source *e = table_find(image, h->sources, h->source_mask, hashes[i]);

		classes[i] = !e ? 0 : i < 2 ? e->class : e->marked;
	}
}

/* Every pair of (set of the object, class of the source) of one decision. */
struct combine {
	void *image;
	struct scratch *scratch;
	u32 sets[AUTOMATA + OBJECT_MARKS];
	u32 attributes;
	u32 broken;
};

static __always_inline u32 exception_row(void *image, u32 set, u32 count, u32 class)
{
	u32 low = 0, high = count;

	for (u32 i = 0; i < SEARCH_STEPS && low < high; i++) {
		u32 middle = (low + high) / 2;
		u32 ref = set + 1 + middle / 2;
		void *page = page_of(image, ref);
		struct image_exception *e;

		if (!page)
			return 0;
		e = unit(page, ref, 0);
		e += middle & 1;
		if (e->class == class)
			return e->row;
		if (e->class < class)
			low = middle + 1;
		else
			high = middle;
	}
	return 0;
}

static __always_inline void combine_entry(struct result *r, struct image_entry *e)
{
	if (e->audits) {
		for (u32 i = 0; i < AUDIT_LISTS; i++) {
			if (r->audits[i] == e->audits)
				break;
			if (!r->audits[i]) {
				r->audits[i] = e->audits;
				break;
			}
		}
	}
	if (!e->priority || e->priority < r->priority)
		return;
	if (e->priority == r->priority) {
		if (e->verdict < r->verdict)
			return;
		if (e->verdict == r->verdict && e->rule >= r->rule)
			return;
	}
	r->priority = e->priority;
	r->rule = e->rule;
	r->verdict = e->verdict;
}

static long combine_step(u32 index, struct combine *c)
{
	u64 object = index / SOURCES, source = index % SOURCES;
	struct image_set *s;
	void *page;
	u32 set, row, class;

	if (object >= AUTOMATA + OBJECT_MARKS || source >= SOURCES)
		return 1;
	set = c->sets[object];
	class = c->scratch->classes[source];
	/* The executable always counts, if only as "no known source"; the others when they are there. */
	if (!set || (source && !class))
		return 0;
	page = page_of(c->image, set);
	if (!page) {
		c->broken = 1;
		return 1;
	}
	s = unit(page, set, 0);
	row = class ? exception_row(c->image, set, s->count, class) : 0;
	if (!row && source < 2)
		row = s->row;
	if (!row)
		return 0;
	row += c->attributes & (ROW_ENTRIES - 1);
	page = page_of(c->image, row);
	if (!page) {
		c->broken = 1;
		return 1;
	}
	combine_entry(&c->scratch->result, unit(page, row, 0));
	return 0;
}

static __always_inline u32 posture_of(void *image, struct image_header *h, u32 source_class, u32 class)
{
	u32 ref = h->postures + source_class / 2;
	struct image_posture *p;
	void *page = page_of(image, ref);

	if (!page)
		return POSTURE_BLOCK;
	p = unit(page, ref, 0);
	p += source_class & 1;
	return class == CLASS_PROCESS ? p->classes[CLASS_PROCESS] : p->classes[CLASS_FILE];
}

static __always_inline void decide_posture(void *image, struct image_header *h, struct scratch *s)
{
	u32 strictest = posture_of(image, h, s->classes[0], s->class);

	for (u32 i = 1; i < SOURCES; i++) {
		u32 posture = s->classes[i] ? posture_of(image, h, s->classes[i], s->class) : POSTURE_NONE;

		if (posture > strictest)
			strictest = posture;
	}
	if (strictest == POSTURE_NONE)
		return;
	s->result.flags |= EVENT_POSTURE;
	if (strictest == POSTURE_BLOCK)
		s->result.verdict = VERDICT_DENY;
	else
		s->result.flags |= EVENT_WOULD_DENY;
}

/* The sets that the object's name matches, one for each automaton, and the protected path that it is. */
static __always_inline bool match_names(struct combine *c, struct image_header *h, struct object *o)
{
	for (u32 i = 0; i < AUTOMATA; i++) {
		u32 start = c->scratch->class == CLASS_PROCESS ? h->classes[0].start[i] : h->classes[1].start[i];
		struct image_set *s;
		void *page;
		u32 set;

		if (!start)
			break;
		set = match_name(c->image, o, start, &c->broken);
		if (!set)
			continue;
		page = page_of(c->image, set);
		if (!page)
			return false;
		s = unit(page, set, 0);
		if (s->mark)
			o->protects = s->mark;
		c->sets[i] = set;
	}
	return !c->broken;
}

/* Decides s->class on object o for s->classes, into s->result. Answers false when the image is broken. */
static __always_inline bool decide(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct combine c = { .image = image, .scratch = s, .attributes = o->attributes };

	if (o->status == PATH_OK && !match_names(&c, h, o))
		return false;
	for (u32 i = 0; i < OBJECT_MARKS; i++) {
		struct image_mark *m = table_find(image, h->marks, h->mark_mask, o->marks[i]);

		if (m)
			c.sets[AUTOMATA + i] = s->class == CLASS_PROCESS ? m->sets[0] : m->sets[1];
	}
	bpf_loop((AUTOMATA + OBJECT_MARKS) * SOURCES, combine_step, &c, 0);
	if (c.broken)
		return false;
	if (!s->result.priority)
		decide_posture(image, h, s);
	return true;
}

static __always_inline u32 class_flags(struct image_header *h, u32 class)
{
	return class == CLASS_PROCESS ? h->classes[0].flags : h->classes[1].flags;
}

#endif
