// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Objects without a path: sockets and capabilities. They are known by numbers, a bit each in a u64; the
// image's class has a table from a number to the rules that name it.
#ifndef MUSTER_NAMES_H
#define MUSTER_NAMES_H

#include "image.h"

/* Position of the lowest bit; x is not zero. */
static __always_inline u32 first_bit(u64 x)
{
	u32 n = 0;

	for (u32 width = 32; width; width /= 2) {
		if (!(x & ((1ULL << width) - 1))) {
			n += width;
			x >>= width;
		}
	}
	return n;
}

struct numbers {
	void *image;
	struct image_class *class;
	struct scratch *scratch;
	u64 names;
};

static long numbers_step(u32 index, struct numbers *n)
{
	u64 at = index;
	u32 number, ref, *sets;
	void *page;

	BOUND(at, OBJECT_NAMES - 1);
	if (!n->names)
		return 1;
	number = first_bit(n->names);
	n->names &= n->names - 1;
	if (number >= n->class->name_count)
		return 0;
	ref = n->class->names + number / 4;
	page = page_of(n->image, ref);
	if (!page) {
		n->scratch->cursor.broken = 1;
		return 1;
	}
	sets = unit(page, ref, 0);
	n->scratch->sets[at] = sets[number & 3];
	return 0;
}

/* The sets of the numbers that o is known by. */
static __always_inline void match_numbers(void *image, struct image_header *h, struct scratch *s, struct object *o)
{
	struct numbers n = { .image = image, .class = class_of(h, s->class), .scratch = s, .names = o->names };

	bpf_loop(OBJECT_NAMES, numbers_step, &n, 0);
}

struct concern {
	void *image;
	struct scratch *scratch;
	u32 table;
};

static long concern_step(u32 index, struct concern *c)
{
	u64 at = index;
	struct image_concern *found;
	void *page;
	u32 class;

	BOUND(at, 7);
	class = c->scratch->classes[at];
	/* The executable counts even when no rule knows it; the others when they are there. */
	if (at && !class)
		return 0;
	page = page_of(c->image, c->table + class);
	/* A record that does not read is left to the decision. */
	found = page ? unit(page, c->table + class, 0) : 0;
	for (u32 i = 0; i < NAMED_CLASSES; i++)
		c->scratch->names[i] |= found ? found->names[i] : ~0ULL;
	return 0;
}

/* From s->classes into s->names: what the image says anything of to these sources. */
static __always_inline void concern(void *image, struct image_header *h, struct scratch *s)
{
	struct concern c = { .image = image, .scratch = s, .table = h->concerns };

	for (u32 i = 0; i < NAMED_CLASSES; i++)
		s->names[i] = 0;
	if (h->concerns)
		bpf_loop(SOURCES, concern_step, &c, 0);
}

#endif
