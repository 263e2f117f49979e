// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#ifndef MUSTER_EVENT_H
#define MUSTER_EVENT_H

#include "maps.h"
#include "label.h"

/* Appends the path of o at s->size of s->data, as number which. */
OF_BOTH1(int, event_path, u32, which)
{
	u64 at, to, length, number = which;

	if (!s || !o)
		return 0;
	at = o->start;
	to = s->size;
	length = PATH_END - at;
	if (number >= EVENT_PATHS)
		return 0;
	BOUND(number, 7);
	s->event.lengths[number] = 0;
	if (o->status == PATH_NONE || o->status == PATH_NAMED || at >= PATH_END || to > EVENT_DATA - PATH_END)
		return 0;
	BOUND(at, PATH_END - 1);
	BOUND(length, PATH_END - 1);
	BOUND(to, EVENT_DATA - 1);
	if (at + length > PATH_END)
		return 0;
	if (bpf_probe_read_kernel(&s->data[to], length, &o->buffer[at]))
		return 0;
	s->event.lengths[number] = length;
	s->size += length;
	return 0;
}

#include "details.h"

/* Who it was; the words for it come later, when the event is not folded. */
static __always_inline void event_process(struct scratch *s, struct task_struct *task)
{
	s->event.pid = bpf_get_current_pid_tgid() >> 32;
	s->event.ppid = TRUSTED(LOOSE(task), real_parent, tgid);
	s->event.uid = (u32)bpf_get_current_uid_gid();
}

static __always_inline void event_task(struct scratch *s, struct task_struct *task)
{
	struct event *e = &s->event;
	struct tty_struct *tty = TRUSTED(LOOSE(task), signal, tty);

	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->tty[0] = 0;
	if (tty)
		bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), &tty->name);
}

/* Only what goes to the ring has a sequence number: a gap is a loss. */
static __always_inline void event_number(struct event *e)
{
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&sequences, &zero);

	e->cpu = bpf_get_smp_processor_id();
	e->time = bpf_ktime_get_boot_ns();
	e->sequence = n ? FETCH_ADD(n, 1) + 1 : 0;
}

static __always_inline void event_result(struct scratch *s)
{
	struct event *e = &s->event;

	e->error = 0;
	e->image = s->image;
	e->script = s->label.source[1];
	e->names = s->object[0].status == PATH_NAMED ? s->object[0].names : 0;
	if (s->class == CLASS_NETWORK || s->class == CLASS_DNS)
		e->endpoint = s->endpoint;
	else
		__builtin_memset(&e->endpoint, 0, sizeof(e->endpoint));
	e->rule = s->result.rule;
	e->class = s->class;
	e->operation = s->operation;
	e->hook = s->hook;
	e->verdict = s->result.verdict;
	e->mode = s->mode;
	e->flags = s->result.flags;
	for (int i = 0; i < AUDIT_LISTS; i++)
		e->audits[i] = s->result.audits[i];
}

/* What tells one object from another where events are folded; 0 for none. */
OF_OBJECT(u64, event_identity)
{
	if (!o || !o->present)
		return 0;
	if (o->status == PATH_NAMED)
		return o->names;
	return o->status == PATH_OK ? path_hash(o) : 0;
}

/* The other end of what a socket does, where it was told; 0 for none. */
static __always_inline u64 event_peer(struct scratch *s)
{
	if ((s->class != CLASS_NETWORK && s->class != CLASS_DNS) || !s->endpoint.port)
		return 0;
	__builtin_memcpy(s->source.buffer, &s->endpoint, sizeof(s->endpoint));
	return bytes_hash(&s->source, 0, sizeof(s->endpoint));
}

/* Who, by which rule, on what: all that the events of one fold have in common. */
static __always_inline void event_key_of(struct scratch *s, u64 source)
{
	struct fold_key *k = &s->key;

	k->image = s->image;
	k->objects[0] = event_identity(&s->object[0]);
	k->objects[1] = event_peer(s);
	if (!k->objects[1])
		k->objects[1] = event_identity(&s->object[1]);
	k->source = source;
	k->script = s->label.source[1];
	for (int i = 0; i < AUDIT_LISTS; i++)
		k->audits[i] = s->result.audits[i];
	k->rule = s->result.rule;
	k->uid = s->event.uid;
	k->class = s->class;
	k->operation = s->operation;
	k->hook = s->hook;
	k->verdict = s->result.verdict;
	k->mode = s->mode;
	k->flags = s->result.flags;
	k->error = 0;
}

static __always_inline void event_key(struct scratch *s, struct task_struct *task)
{
	struct label *l = TASK_GET(labels, task, 0);

	event_process(s, task);
	event_key_of(s, l ? l->source[0] : s->label.source[0]);
}

enum folding {
	FOLD_NONE, /* there is none of this key */
	FOLD_TELL, /* the event is to be told by itself */
	FOLD_COUNTED,
};

/* Counts the event in its fold of a kind. */
OF_SCRATCH2(int, fold_count, u32, kind, u32, burst)
{
	struct fold *f;
	void *map;

	if (!s)
		return FOLD_TELL;
	s = scratch_again(s->slot);
	map = bpf_map_lookup_elem(&folds, &kind);
	if (!s || !map)
		return FOLD_TELL;
	f = bpf_map_lookup_elem(map, &s->key);
	if (!f)
		return FOLD_NONE;
	if (FETCH_ADD(&f->head.told, 1) < burst)
		return FOLD_TELL;
	f->head.last = bpf_ktime_get_boot_ns();
	if (!f->head.first)
		f->head.first = f->head.last;
	f->head.pid = s->event.pid;
	f->head.ppid = s->event.ppid;
	__sync_fetch_and_add(&f->head.count, 1);
	count(COUNT_FOLDED);
	return FOLD_COUNTED;
}

/* More than half of the ring waits to be read: the other half is for what nobody has heard of yet. */
static __always_inline bool ring_presses(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
}

/* Counts the event in a fold, or says in s->begin in which kind one of it is to begin, if any. The first events of a
 * key are told each by itself. While the reader does not keep up, one of each has to do, and what is new is folded by
 * rule and source, whatever the object: one rule's storm over many files leaves room for the others' events. */
static __always_inline bool event_fold(struct scratch *s)
{
	bool pressed = ring_presses();
	u32 folding = fold_count(s, FOLDS_OBJECT, pressed ? 1 : FOLD_BURST);

	s->begin = FOLDS_OBJECT;
	if (folding == FOLD_NONE && pressed) {
		s->key.objects[0] = 0;
		s->key.objects[1] = 0;
		s->begin = FOLDS_RULE;
		folding = fold_count(s, FOLDS_RULE, 1);
	}
	if (folding == FOLD_TELL)
		s->begin = FOLDS;
	return folding == FOLD_COUNTED;
}

/* No text yet. */
static __always_inline void event_empty(struct scratch *s)
{
	s->size = 0;
	s->event.arguments = 0;
	for (int i = 0; i < EVENT_PATHS; i++)
		s->event.lengths[i] = 0;
}

/* The paths of the objects, of the caller and of who started it, into s->data; their size into s->size. */
static __always_inline void event_paths(struct scratch *s)
{
	event_empty(s);
	event_path(s, &s->object[0], 0);
	if (s->object[1].present)
		event_path(s, &s->object[1], 1);
	if (executable_find(s, false))
		event_path(s, &s->source, 2);
	if (executable_find(s, true))
		event_path(s, &s->source, 3);
}

/* While two sets of programs decide, one of them speaks of what is permitted; a denial is told by the one that
 * denies, because the kernel asks no other program after it. */
static __always_inline bool event_speaks(u32 verdict)
{
	u32 zero = 0;
	struct settings *c = bpf_map_lookup_elem(&config, &zero);

	return verdict == VERDICT_DENY || (c && c->instance == instance);
}

/* Begins the fold of s->event. What does not fit into one is told each time, until the ring presses: then the example
 * is cut. */
static __always_inline void event_begin(struct scratch *s)
{
	void *map = bpf_map_lookup_elem(&folds, &s->begin);

	if (!map || (s->size > FOLD_DATA && s->key.objects[0]))
		return;
	__builtin_memset(&s->head, 0, sizeof(s->head));
	s->head.told = 1;
	bpf_map_update_elem(map, &s->key, &s->head, BPF_NOEXIST);
}

/* Sends s->event with the paths in s->data, and begins its fold when there is to be one. caller: the event is about who
 * runs at this moment. */
static __always_inline void event_send(struct scratch *s, bool caller)
{
	u64 size;

	event_number(&s->event);
	event_begin(s);
	if (caller)
		event_details(s);
	size = s->size;
	BOUND(size, EVENT_DATA - 1);
	if (bpf_ringbuf_output(&events, &s->event, sizeof(s->event) + size, 0))
		count(COUNT_RING_FULL);
}

/* Emits one event for what s->result says, or counts it with others like it. */
OF_SCRATCH(int, event_emit)
{
	struct task_struct *task = current_task();

	if (!s || !event_speaks(s->result.verdict) ||
	    (s->result.flags & EVENT_DRY && !dry_speaks(s, caller_is_agent())))
		return 0;
	count(COUNT_EVENTS);
	s = scratch_again(s->slot);
	if (!s) {
		count(COUNT_RING_FULL);
		return 0;
	}
	event_key(s, task);
	if (event_fold(s))
		return 0;
	event_result(s);
	event_task(s, task);
	event_paths(s);
	event_send(s, true);
	return 0;
}

#endif
