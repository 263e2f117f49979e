// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// SipHash-2-4 of a path under the boot's own random key: sources and marks are known by it. The key never
// leaves root's hands, so nobody can choose two paths that meet.
#ifndef MUSTER_HASH_H
#define MUSTER_HASH_H

#include "maps.h"
#include "walk.h"

struct sip {
	struct object *object;
	u64 v0, v1, v2, v3;
	u32 at;
	u32 words;
};

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static __always_inline void sip_round(struct sip *h)
{
	h->v0 += h->v1;
	h->v1 = ROTL(h->v1, 13);
	h->v1 ^= h->v0;
	h->v0 = ROTL(h->v0, 32);
	h->v2 += h->v3;
	h->v3 = ROTL(h->v3, 16);
	h->v3 ^= h->v2;
	h->v0 += h->v3;
	h->v3 = ROTL(h->v3, 21);
	h->v3 ^= h->v0;
	h->v2 += h->v1;
	h->v1 = ROTL(h->v1, 17);
	h->v1 ^= h->v2;
	h->v2 = ROTL(h->v2, 32);
}

static __always_inline void sip_word(struct sip *h, u64 word)
{
	h->v3 ^= word;
	sip_round(h);
	sip_round(h);
	h->v0 ^= word;
}

static long sip_step(u32 index, struct sip *h)
{
	u64 at = h->at;

	if (index >= h->words)
		return 1;
	BOUND(at, PATH_END - 1);
	sip_word(h, *(u64 *)&h->object->buffer[at]);
	h->at += 8;
	return 0;
}

static __always_inline u64 sip_tail(struct object *o, u32 start, u32 length)
{
	u64 at = start, rest = length & 7;
	u64 word;

	BOUND(at, PATH_END - 1);
	word = rest ? *(u64 *)&o->buffer[at] & ((1ULL << (rest * 8)) - 1) : 0;
	return word | ((u64)length << 56);
}

/* The hash of a built path; 0 is kept for "none". */
__noinline u64 path_hash(struct object *o)
{
	struct sip h = {};
	struct settings *c;
	u32 zero = 0, length;
	u64 hash;

	if (!o || o->status != PATH_OK || o->start >= PATH_END)
		return 0;
	c = bpf_map_lookup_elem(&config, &zero);
	if (!c)
		return 0;
	length = PATH_END - o->start;
	h.object = o;
	h.v0 = c->hash_key[0] ^ 0x736f6d6570736575ULL;
	h.v1 = c->hash_key[1] ^ 0x646f72616e646f6dULL;
	h.v2 = c->hash_key[0] ^ 0x6c7967656e657261ULL;
	h.v3 = c->hash_key[1] ^ 0x7465646279746573ULL;
	h.at = o->start;
	h.words = length / 8;
	bpf_loop(PATH_END / 8, sip_step, &h, 0);
	sip_word(&h, sip_tail(o, h.at, length));
	h.v2 ^= 0xff;
	sip_round(&h);
	sip_round(&h);
	sip_round(&h);
	sip_round(&h);
	hash = h.v0 ^ h.v1 ^ h.v2 ^ h.v3;
	return hash ? hash : 1;
}

#endif
