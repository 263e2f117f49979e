// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The name that a DNS message asks for, as a path from its end: the bytes of the message are in s->data.
#ifndef MUSTER_QUESTION_H
#define MUSTER_QUESTION_H

#include "maps.h"
#include "image.h"

/* Header, name, and the two bytes of length before a message over TCP; a power of two. */
#define QUESTION_BYTES 512
#define QUESTION_HEADER 12
#define QUESTION_NAME 255
#define GATHER_SEGMENTS 8

struct question_loop {
	struct scratch *scratch;
	struct object *object;
};

/* One byte of the name. Labels are copied forwards, each in front of the one before it. */
static long question_step(u32 index, struct question_loop *l)
{
	struct question *q = &l->scratch->question;
	u64 at = q->at, to;
	u32 byte;

	if (at >= q->end)
		return 1;
	BOUND(at, QUESTION_BYTES - 1);
	byte = (u8)l->scratch->data[at];
	q->at++;
	if (!q->left) {
		if (!byte) {
			q->state = QUESTION_NAMED;
			return 1;
		}
		/* A pointer: no client asks so, and servers differ in what they make of it. */
		if (byte > 63)
			return 1;
		q->start -= byte + 1;
		to = q->start;
		BOUND(to, PATH_END - 1);
		l->object->buffer[to] = '/';
		q->to = q->start + 1;
		q->left = byte;
		return 0;
	}
	if (byte >= 'A' && byte <= 'Z')
		byte += 'a' - 'A';
	/* No byte of a label ends it. */
	if (!byte || byte == '/')
		byte = 1;
	to = q->to++;
	BOUND(to, PATH_END - 1);
	l->object->buffer[to] = byte;
	q->left--;
	return 0;
}

LOOPED(question_step, struct question_loop, (u32 index, u32 slot, u32 self), (of.scratch && of.object),
       (index, of->scratch->slot, of->object->cursor.self),
       { .scratch = scratch_again(slot), .object = object_at(self) })

static __always_inline u32 question_word(struct scratch *s, u32 at32)
{
	u64 at = at32;

	BOUND(at, QUESTION_BYTES - 2);
	return (u32)(u8)s->data[at] << 8 | (u8)s->data[at + 1];
}

/* Reads the message that begins at byte from of s->data, which has q->end bytes, into the object's path. */
static __always_inline void question_read(struct scratch *s, struct object *o, u32 from)
{
	struct question_loop l = { .scratch = s, .object = o };
	struct question *q = &s->question;

	q->state = QUESTION_NONE;
	q->at = from + QUESTION_HEADER;
	q->left = 0;
	q->start = PATH_END;
	/* An answer, or no question at all. */
	if (q->at > q->end || question_word(s, from + 2) & 0x8000 || !question_word(s, from + 4))
		return;
	q->state = QUESTION_UNREAD;
	/* Whoever asks several things at once is asked to do it one by one. */
	if (question_word(s, from + 4) != 1)
		return;
	LOOP(QUESTION_NAME + 1, question_step, &l);
	if (q->state == QUESTION_NAMED && q->start == PATH_END) {
		q->start = PATH_END - 1;
		o->buffer[PATH_END - 1] = '/';
	}
	o->start = q->start;
}

/* Over TCP a length of two bytes goes before the message, in the same segment or in one before it. */
static __always_inline void question_read_stream(struct scratch *s, struct object *o)
{
	struct question *q = &s->question;

	if (q->end > QUESTION_HEADER + 2 && question_word(s, 0) > QUESTION_HEADER &&
	    question_word(s, 0) + 2 <= q->size) {
		question_read(s, o, 2);
		if (q->state != QUESTION_NONE)
			return;
	}
	question_read(s, o, 0);
	/* The name may be in another segment, or this one in the middle of a message. */
	if (q->state == QUESTION_UNREAD)
		q->state = QUESTION_NONE;
}

struct gather {
	struct scratch *scratch;
	u64 segments; /* struct iovec */
	u64 count;
	u64 skip;
};

static __always_inline bool gather_bytes(struct scratch *s, u64 from, u64 length)
{
	u64 at = s->question.end;

	if (at >= QUESTION_BYTES)
		return false;
	if (length > QUESTION_BYTES - at)
		length = QUESTION_BYTES - at;
	BOUND(at, QUESTION_BYTES - 1);
	BOUND(length, 2 * QUESTION_BYTES - 1);
	if (bpf_probe_read_user(&s->data[at], length, (void *)from))
		return false;
	s->question.end += length;
	return true;
}

static long gather_step(u32 index, struct gather *g)
{
	struct iovec v;

	if (index >= g->count || bpf_probe_read_kernel(&v, sizeof(v), (void *)(g->segments + index * sizeof(v))))
		return 1;
	if (g->skip > v.iov_len)
		return 1;
	if (!gather_bytes(g->scratch, (u64)v.iov_base + g->skip, v.iov_len - g->skip))
		return 1;
	g->skip = 0;
	return 0;
}

LOOPED_NEAR(gather_step, struct gather)

#ifdef OLDER_KERNEL
/* The lowest bit says whether it is written to. */
static __always_inline u32 kind_of(struct iov_iter *it)
{
	return BPF_CORE_READ((struct iov_iter___5_10 *)it, type) & ~1;
}
#else
static __always_inline u32 kind_of(struct iov_iter *it)
{
	return BPF_CORE_READ(it, iter_type);
}
#endif

/* The beginning of what the caller sends, into s->data; false when it is not in the caller's memory. */
static __always_inline bool question_gather(struct scratch *s, struct msghdr *message)
{
	struct iov_iter *it = &message->msg_iter;
	u32 kind = kind_of(it);
	struct iov_iter___5_20 *earlier = (void *)it;
	struct gather g = { .scratch = s, .skip = BPF_CORE_READ(it, iov_offset) };

	s->question.end = 0;
	s->question.size = BPF_CORE_READ(it, count);
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	    kind == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		gather_bytes(s, (u64)BPF_CORE_READ(it, ubuf) + g.skip, s->question.size);
		return true;
	}
	if (kind != bpf_core_enum_value(enum iter_type, ITER_IOVEC))
		return false;
	if (bpf_core_field_exists(it->__iov))
		g.segments = (u64)BPF_CORE_READ(it, __iov);
	else
		g.segments = (u64)BPF_CORE_READ(earlier, iov);
	g.count = BPF_CORE_READ(it, nr_segs);
	LOOP(GATHER_SEGMENTS, gather_step, &g);
	return true;
}

#endif
