// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How the records of an image are found; abi.h says what they are.
#ifndef MUSTER_IMAGE_H
#define MUSTER_IMAGE_H

#include "maps.h"

/* Keeps clang from turning a mask into a signed comparison that the verifier cannot follow. */
#define BOUND(x, mask) asm volatile("%0 &= %1" : "+r"(x) : "i"(mask))

/* Lets the verifier forget what it knows of a value, by way of a cursor: where two ways meet that differ in nothing
 * else, it then follows one of them. */
#define FORGET(c, x)                                                                                                   \
	({                                                                                                             \
		(c)->unknown = (x);                                                                                    \
		asm volatile("" ::: "memory");                                                                         \
		(x) = (c)->unknown;                                                                                    \
	})

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

/* The image that the host's subjects are under now. */
static __always_inline void *host_image(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&slots, &zero);
}

/* The image that s is judged by. The steps of a decision are global functions, which the verifier reads once and not
 * for every way that leads to them; a map cannot be handed to them, so each takes the image by itself. When that is
 * another one by now the decision is made again: see judge. */
static __always_inline void *image_judged(struct scratch *s, struct image_header **header)
{
	void *image = host_image();

	*header = image ? image_head(image) : 0;
	if (*header && (*header)->id == s->image)
		return image;
	s->again = 1;
	return 0;
}

#ifdef OLDER_KERNEL
/* What a step of a loop works on, by the number of the slot. */
static __always_inline void *image_again(u32 slot)
{
	struct scratch *s = scratch_again(slot);
	struct image_header *h;

	return s ? image_judged(s, &h) : 0;
}

static __always_inline struct cursor *cursor_again(u32 slot)
{
	struct scratch *s = scratch_again(slot);

	return s ? &s->cursor : 0;
}
#endif

/* One of the header's classes. */
static __always_inline struct image_class *class_of(struct image_header *h, u32 class)
{
	u64 at = class;

	if (!__builtin_constant_p(class))
		BOUND(at, 15);
	return &h->classes[at];
}

static __always_inline u32 class_flags(struct image_header *h, u32 class)
{
	return class_of(h, class)->flags;
}

#endif
