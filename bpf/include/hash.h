// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// SipHash-2-4 of a path under the boot's own random key: sources and marks are known by it. The key never
// leaves root's hands, so nobody can choose two paths that meet.
#ifndef MUSTER_HASH_H
#define MUSTER_HASH_H

#include "maps.h"
#include "walk.h"
#include "image.h"

struct sip {
	struct object *object;
	u32 words;
	u32 length;
};

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static __always_inline void sip_round(u64 *v)
{
	v[0] += v[1];
	v[1] = ROTL(v[1], 13);
	v[1] ^= v[0];
	v[0] = ROTL(v[0], 32);
	v[2] += v[3];
	v[3] = ROTL(v[3], 16);
	v[3] ^= v[2];
	v[0] += v[3];
	v[3] = ROTL(v[3], 21);
	v[3] ^= v[0];
	v[2] += v[1];
	v[1] = ROTL(v[1], 17);
	v[1] ^= v[2];
	v[2] = ROTL(v[2], 32);
}

static __always_inline void sip_word(u64 *v, u64 word)
{
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
}

/* One word: of the message, of what is left of it with its length, and then twice of nothing, which makes the four
 * rounds that end it. */
static long sip_step(u32 index, struct sip *h)
{
	struct cursor *c = &h->object->cursor;
	u64 at = c->at, word = 0;

	if (index > h->words + 2)
		return 1;
	if (index <= h->words) {
		BOUND(at, PATH_END - 1);
		word = load64(&h->object->buffer[at]);
		c->at += 8;
	} else if (index == h->words + 1) {
		c->words[2] ^= 0xff;
	}
	if (index == h->words)
		word = (word & ((1ULL << ((h->length & 7) * 8)) - 1)) | ((u64)h->length << 56);
	FORGET(c, word);
	sip_word(c->words, word);
	return 0;
}

LOOPED(sip_step, struct sip, (u32 index, u32 self, u32 words, u32 length), of.object,
       (index, of->object->cursor.self, of->words, of->length),
       { .object = object_at(self), .words = words, .length = length })

/* The hash of bytes of o's buffer; 0 is kept for "none". */
OF_OBJECT2(u64, bytes_hash, u32, start, u32, length)
{
	struct sip h = {};
	struct settings *c;
	u32 zero = 0;
	u64 hash, *v;

	if (!o || start >= PATH_END || length > PATH_END)
		return 0;
	c = bpf_map_lookup_elem(&config, &zero);
	if (!c)
		return 0;
	v = o->cursor.words;
	v[0] = c->hash_key[0] ^ 0x736f6d6570736575ULL;
	v[1] = c->hash_key[1] ^ 0x646f72616e646f6dULL;
	v[2] = c->hash_key[0] ^ 0x6c7967656e657261ULL;
	v[3] = c->hash_key[1] ^ 0x7465646279746573ULL;
	o->cursor.at = start;
	h.object = o;
	h.words = length / 8;
	h.length = length;
	LOOP(PATH_END / 8 + 3, sip_step, &h);
	hash = v[0] ^ v[1] ^ v[2] ^ v[3];
	return hash ? hash : 1;
}

/* The hash of a built path. */
static __always_inline u64 path_hash(struct object *o)
{
	return o->status == PATH_OK ? bytes_hash(o, o->start, PATH_END - o->start) : 0;
}

#endif
