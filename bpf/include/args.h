// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The arguments of a program that is being started, as hashes. While the start can still be refused they are
// read where the caller has them; bpf/args.bpf.c reads them again where nobody else can change them any more.
#ifndef MUSTER_ARGS_H
#define MUSTER_ARGS_H

#include "maps.h"
#include "hash.h"

/* Where the caller's argument vector is, and how wide its pointers are. */
struct vector {
	u64 address;
	u32 width;
};

/* The numbers of execve and execveat: of x86-64, of its 32-bit pointers (x32), of i386. None means one thing in
 * one and another in the other, while a program is being started. */
static __always_inline void vector_of(struct vector *v)
{
	struct pt_regs *regs = current_registers();

	v->width = 4;
	switch ((u32)BPF_CORE_READ(regs, orig_ax)) {
	case 59:
		v->width = 8;
		v->address = BPF_CORE_READ(regs, si);
		break;
	case 322:
		v->width = 8;
		v->address = BPF_CORE_READ(regs, dx);
		break;
	case 0x40000000 + 520:
		v->address = BPF_CORE_READ(regs, si);
		break;
	case 0x40000000 + 545:
		v->address = BPF_CORE_READ(regs, dx);
		break;
	case 11:
		v->address = (u32)BPF_CORE_READ(regs, cx);
		break;
	case 358:
		v->address = (u32)BPF_CORE_READ(regs, dx);
		break;
	default: /* the kernel itself starts it */
		v->width = 0;
	}
}

/* The hash of a string of user space, 0 when it cannot be read or is too long. *size is with its NUL. */
static __always_inline u64 string_hash(struct scratch *s, u64 address, u32 *size)
{
	long n = bpf_probe_read_user_str(s->source.buffer, PATH_END, (void *)address);

	if (n <= 0 || n >= PATH_END)
		return 0;
	*size = n;
	return bytes_hash(&s->source, 0, n - 1);
}

struct reading {
	struct scratch *scratch;
	struct vector vector;
};

static long argument_step(u32 index, struct reading *r)
{
	struct arguments *a = &r->scratch->arguments;
	u64 address = 0, at = a->at, hash;
	u32 size;

	if (at >= a->count)
		return 1;
	BOUND(at, ARGUMENTS - 1);
	if (bpf_probe_read_user(&address, r->vector.width == 8 ? 8 : 4,
				(void *)(r->vector.address + (u64)(index + 1) * r->vector.width)))
		address = 0;
	hash = address ? string_hash(r->scratch, address, &size) : 0;
	if (!hash) {
		a->state = ARGUMENTS_UNKNOWN;
		return 1;
	}
	a->hashes[at] = hash;
	a->print = (ROTL(a->print, 7) ^ hash) * 0x9e3779b97f4a7c15ULL;
	a->at++;
	return 0;
}

LOOPED(argument_step, struct reading, (u32 index, u32 slot, u64 address, u32 width), of.scratch,
       (index, of->scratch->slot, of->vector.address, of->vector.width),
       { .scratch = scratch_again(slot), .vector.address = address, .vector.width = width })

/* Reads the caller's arguments behind the a->before that are there already; a->count is of both. */
OF_SCRATCH(int, arguments_read)
{
	struct reading r = { .scratch = s };
	struct arguments *a;

	if (!s)
		return 0;
	a = &s->arguments;
	a->state = ARGUMENTS_KNOWN;
	a->at = a->before;
	a->print = 0;
	if (a->count > a->before) {
		vector_of(&r.vector);
		if (r.vector.width && a->count <= ARGUMENTS)
			LOOP(ARGUMENTS, argument_step, &r);
		if (a->at != a->count)
			a->state = ARGUMENTS_UNKNOWN;
	}
	if (a->state != ARGUMENTS_KNOWN)
		count(COUNT_ARGUMENTS);
	return 0;
}

#endif
