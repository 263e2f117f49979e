// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// SipHash-2-4 of a path under the boot's own random key: sources and marks are known by it. The key never
// leaves root's hands, so nobody can choose two paths that meet.
#ifndef MUSTER_HASH_H
#define MUSTER_HASH_H

#include "maps.h"
#include "walk.h"

struct sip {
	struct object *object;
	u32 words;
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

static long sip_step(u32 index, struct sip *h)
{
	u64 at = h->object->cursor.at;

	if (index >= h->words)
		return 1;
	BOUND(at, PATH_END - 1);
	sip_word(h->object->cursor.words, load64(&h->object->buffer[at]));
	h->object->cursor.at += 8;
	return 0;
}

static __always_inline u64 sip_tail(struct object *o, u32 start, u32 length)
{
	u64 at = start, rest = length & 7;
	u64 word;

	BOUND(at, PATH_END - 1);
	word = rest ? load64(&o->buffer[at]) & ((1ULL << (rest * 8)) - 1) : 0;
	return word | ((u64)length << 56);
}

/* The hash of bytes of o's buffer; 0 is kept for "none". */
__noinline u64 bytes_hash(struct object *o, u32 start, u32 length)
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
	bpf_loop(PATH_END / 8, sip_step, &h, 0);
	sip_word(v, sip_tail(o, o->cursor.at, length));
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	sip_round(v);
	hash = v[0] ^ v[1] ^ v[2] ^ v[3];
	return hash ? hash : 1;
}

/* The hash of a built path. */
static __always_inline u64 path_hash(struct object *o)
{
	return o->status == PATH_OK ? bytes_hash(o, o->start, PATH_END - o->start) : 0;
}

#endif
