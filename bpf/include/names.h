// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Objects without a path: sockets and capabilities. They are known by numbers, a bit each in a u64; the
// image's class has a table from a number to the rules that name it.
#ifndef MUSTER_NAMES_H
#define MUSTER_NAMES_H

#include "image.h"

/* By the uppermost six bits of what a bit makes of BIT_PRODUCT. */
#define BIT_PRODUCT 0x03f79d71b4cb0a89ULL
static const u8 bit_positions[64] = {
	0,  1,  48, 2,  57, 49, 28, 3,  61, 58, 50, 42, 38, 29, 17, 4,  62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,  63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,  13, 8,  7,  6,
};

/* Position of the lowest bit; x is not zero. Without a branch, each of which would double the verifier's ways. */
static __always_inline u32 first_bit(u64 x)
{
	return bit_positions[((x & -x) * BIT_PRODUCT) >> 58];
}

/* The sets of the numbers that an object is known by, into s->sets. Answers whether there is one. */
OF_SCRATCH1(int, match_numbers, u64, names)
{
	struct image_class *class;
	struct image_header *h;
	u32 number, ref, *sets, any = 0;
	void *image, *page;

	if (!s)
		return 0;
	for (u32 i = 0; i < AUTOMATA + OBJECT_MARKS; i++)
		s->sets[i] = 0;
	image = image_judged(s, &h);
	if (!image)
		return 0;
	class = class_of(h, s->class);
	s->cursor.words[0] = names;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < OBJECT_NAMES; i++) {
		names = s->cursor.words[0];
		if (!names)
			break;
		s->cursor.words[0] = names & (names - 1);
		number = first_bit(names);
		if (number >= class->name_count)
			continue;
		ref = class->names + number / 4;
		page = page_of(image, ref);
		if (!page) {
			s->cursor.broken = 1;
			return 1;
		}
		sets = unit(page, ref, 0);
		s->sets[i] = sets[number & 3];
		any |= s->sets[i];
	}
	return any != 0;
}

/* What the image says of one source class, added to s->names and s->postures. A record that does not read is left to
 * the decision. */
OF_SCRATCH1(int, concern_class, u32, class)
{
	struct image_concern *found;
	struct image_header *h;
	void *image, *page;

	if (!s)
		return 0;
	image = image_judged(s, &h);
	if (!image)
		return 0;
	if (h->postures) {
		page = page_of(image, h->postures + class);
		s->postures |= page ? ((struct image_posture *)unit(page, h->postures + class, 0))->classes : ~0ULL;
	}
	if (!h->concerns)
		return 0;
	page = page_of(image, h->concerns + class);
	found = page ? unit(page, h->concerns + class, 0) : 0;
	for (u32 i = 0; i < NAMED_CLASSES; i++)
		s->names[i] |= found ? found->names[i] : ~0ULL;
	return 0;
}

/* From s->classes into s->names and s->postures: what the image says anything of to these sources, and what their
 * allow-lists do with what no rule matches. The executable counts even when no rule knows it; the others when they
 * are there. */
static __always_inline void concern(struct scratch *s)
{
	u64 end = s->chained ? CHAIN_CLASSES + CHAIN : SOURCES;

	for (u32 i = 0; i < NAMED_CLASSES; i++)
		s->names[i] = 0;
	s->postures = 0;
	concern_class(s, s->classes[0]);
#pragma clang loop unroll(disable)
	for (u64 i = 1; i < CHAIN_CLASSES + CHAIN && i < end; i++)
		if (s->classes[i] && (i < SOURCES || i >= CHAIN_CLASSES))
			concern_class(s, s->classes[i]);
}

/* Of postures that several sources have the strictest counts. */
static __always_inline u32 posture_in(u64 postures, u32 class)
{
	return (u32)(postures >> ((class & 15) * 4)) & 15;
}

#endif
