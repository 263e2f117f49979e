// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#ifndef MUSTER_EVENT_H
#define MUSTER_EVENT_H

#include "maps.h"
#include "label.h"

/* Appends the path of o at *end of s->data, as number which. */
static __always_inline void event_path(struct scratch *s, struct object *o, u32 *end, u32 which)
{
	u64 at = o->start, to = *end, length = PATH_END - at;

	s->event.lengths[which] = 0;
	if (o->status == PATH_NONE || o->status == PATH_NAMED || at >= PATH_END || to > EVENT_DATA - PATH_END)
		return;
	BOUND(at, PATH_END - 1);
	BOUND(length, PATH_END - 1);
	BOUND(to, EVENT_DATA - 1);
	if (at + length > PATH_END)
		return;
	if (bpf_probe_read_kernel(&s->data[to], length, &o->buffer[at]))
		return;
	s->event.lengths[which] = length;
	*end += length;
}

static __always_inline void event_task(struct scratch *s, struct task_struct *task)
{
	struct event *e = &s->event;
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);

	e->cpu = bpf_get_smp_processor_id();
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->ppid = BPF_CORE_READ(task, real_parent, tgid);
	e->uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->tty[0] = 0;
	if (tty)
		bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), &tty->name);
}

static __always_inline void event_result(struct scratch *s)
{
	struct event *e = &s->event;
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&sequences, &zero);

	e->time = bpf_ktime_get_boot_ns();
	e->sequence = n ? __sync_fetch_and_add(n, 1) + 1 : 0;
	e->image = s->image;
	e->script = s->label.source[1];
	e->names = s->object[0].status == PATH_NAMED ? s->object[0].names : 0;
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

/* Emits one event for what s->result says. While two sets of programs decide, one of them speaks of what is
 * permitted; a denial is told by the one that denies, because the kernel asks no other program after it. */
__noinline int event_emit(struct scratch *s)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct settings *c;
	u32 end = 0, zero = 0;
	u64 size;

	if (!s)
		return 0;
	c = bpf_map_lookup_elem(&config, &zero);
	if (s->result.verdict != VERDICT_DENY && (!c || c->instance != instance))
		return 0;
	event_result(s);
	event_task(s, task);
	event_path(s, &s->object[0], &end, 0);
	if (s->object[1].present)
		event_path(s, &s->object[1], &end, 1);
	else
		s->event.lengths[1] = 0;
	s->event.lengths[2] = 0;
	s->event.lengths[3] = 0;
	if (executable_of(task, &s->source))
		event_path(s, &s->source, &end, 2);
	if (executable_of(BPF_CORE_READ(task, real_parent), &s->source))
		event_path(s, &s->source, &end, 3);
	size = end;
	BOUND(size, EVENT_DATA - 1);
	count(COUNT_EVENTS);
	if (bpf_ringbuf_output(&events, &s->event, sizeof(s->event) + size, 0))
		count(COUNT_RING_FULL);
	return 0;
}

#endif
