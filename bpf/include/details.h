// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What an event that is told by itself says of the caller beyond its paths: the directory that it is in and, when it starts
// a program, the arguments. A fold has neither: they differ between the events that it counts.
#ifndef MUSTER_DETAILS_H
#define MUSTER_DETAILS_H

#include "label.h"
#include "args.h"

/* Only a whole path: a part of one would be taken for another directory. */
static __always_inline void event_directory(struct scratch *s)
{
	struct fs_struct *fs = READ(current_task(), fs);

	if (!fs)
		return;
	object_set(&s->source, READ(fs, pwd.mnt), READ(fs, pwd.dentry), 0);
	walk(&s->source);
	if (s->source.status == PATH_OK)
		event_path(s, &s->source, EVENT_DIRECTORY);
}

/* Pointer index of the caller's vector. The first is the name that the program is to have; the last is none. */
static long event_argument(u32 index, struct reading *r)
{
	struct scratch *s = r->scratch;
	u64 address = 0, to = s->size, room = EVENT_ARGUMENTS - s->event.arguments;
	long n;

	if (!room || room > EVENT_ARGUMENTS)
		return 1;
	if (bpf_probe_read_user(&address, r->vector.width == 8 ? 8 : 4,
				(void *)(r->vector.address + (u64)index * r->vector.width)))
		return 1;
	if (!address) {
		s->event.flags &= ~EVENT_CUT;
		return 1;
	}
	if (!index)
		return 0;
	BOUND(to, EVENT_DATA - 1);
	BOUND(room, 1023);
	n = bpf_probe_read_user_str(&s->data[to], room, (void *)address);
	if (n <= 0)
		return 1;
	s->size += n;
	s->event.arguments += n;
	return 0;
}

LOOPED(event_argument, struct reading, (u32 index, u32 slot, u64 address, u32 width), of.scratch,
       (index, of->scratch->slot, of->vector.address, of->vector.width),
       { .scratch = scratch_again(slot), .vector.address = address, .vector.width = width })

/* As the caller has them at this moment; what is judged is read by itself. When the start can no longer be refused, the
 * caller's memory is gone. */
static __always_inline void event_arguments(struct scratch *s)
{
	struct reading r = { .scratch = s };

	s->event.flags |= EVENT_CUT;
	if (s->hook == HOOK_BPRM_COMMITTING || s->size >= EVENT_DATA - EVENT_ARGUMENTS)
		return;
	vector_of(&r.vector);
	if (r.vector.width)
		LOOP(EVENT_ARGUMENTS + 2, event_argument, &r);
}

OF_SCRATCH(int, event_details)
{
	if (!s)
		return 0;
	event_directory(s);
	if (s->operation == OP_EXEC)
		event_arguments(s);
	return 0;
}

#endif
