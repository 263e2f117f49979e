//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The test entry: the same helpers as the hooks use, fed from user space. Runs on any kernel by
// BPF_PROG_TEST_RUN and is attached nowhere.

static __always_inline s32 probe_path(struct probe *p, struct object *o, u64 from, u64 length)
{
	u64 at;

	if (length >= PATH_END)
		return -1;
	at = PATH_END - length;
	o->start = at;
	o->names = p->names;
	if (p->names)
		o->status = PATH_NAMED;
	else if (p->flags & EVENT_UNBUILDABLE)
		o->status = PATH_DETACHED;
	else
		o->status = length ? PATH_OK : PATH_INTERNAL;
	BOUND(at, PATH_END - 1);
	BOUND(length, PATH_END - 1);
	if (at + length > PATH_END)
		return -1;
	return length ? bpf_copy_from_user(&o->buffer[at], length, (void *)from) : 0;
}

/* Class syscalls, with the directories of the executable. */
static __noinline s32 probe_call(struct probe *p, struct scratch *s)
{
	u32 zero = 0, ref, number = p->call, executable, script;
	void *image = bpf_map_lookup_elem(&slots, &zero), *page;
	struct image_header *h = image ? image_head(image) : 0;
	struct image_call *c;

	if (!h)
		return -2;
	if (!h->calls || number >= CALLS)
		return 0;
	classify(image, h, s);
	if (probe_path(p, &s->source, p->source_paths[0], p->source_lengths[0]))
		return -1;
	executable = directories_class(image, h->directories, s);
	if (probe_path(p, &s->source, p->source_paths[1], p->source_lengths[1]))
		return -1;
	script = directories_class(image, h->directories, s);
	ref = h->calls + number / 2;
	page = page_of(image, ref);
	if (!page)
		return -3;
	c = unit(page, ref, 0);
	ref = (c + (number & 1))->group;
	if (ref)
		group_decide(image, ref, s, executable, script);
	return s->cursor.broken ? -3 : 0;
}

static __always_inline s32 probe_decide(struct probe *p, struct scratch *s)
{
	u32 zero = 0;
	void *image = bpf_map_lookup_elem(&slots, &zero);
	struct image_header *h = image ? image_head(image) : 0;

	if (!h)
		return -2;
	if (s->object[0].status == PATH_DETACHED && class_flags(h, s->class) & CLASS_CLOSED) {
		s->result.verdict = VERDICT_DENY;
		s->result.flags = EVENT_UNBUILDABLE;
	} else {
		classify(image, h, s);
		concern(image, h, s);
		/* What the hooks would not even ask about. */
		if (s->class >= CLASS_NETWORK && s->class < CLASS_NETWORK + NAMED_CLASSES &&
		    !(s->names[s->class - CLASS_NETWORK] & s->object[0].names))
			return 0;
		if (!decide(image, h, s, &s->object[0]))
			return -3;
	}
	if (s->result.verdict == VERDICT_DENY && h->mode == MODE_AUDIT) {
		s->result.verdict = VERDICT_PERMIT;
		s->result.flags |= EVENT_WOULD_DENY;
	}
	return 0;
}

SEC("syscall")
int probe_decision(struct probe *p)
{
	struct scratch *s = scratch_take();
	s32 error;

	if (!s)
		return -4;
	__builtin_memset(&s->result, 0, sizeof(s->result));
	s->class = p->class;
	s->arguments.state = p->arguments;
	s->arguments.count = p->argument_count;
#pragma unroll
	for (int i = 0; i < 8; i++)
		s->arguments.hashes[i] = p->argument_hashes[i];
	s->object[0].attributes = p->attributes;
#pragma unroll
	for (int i = 0; i < SOURCES; i++)
		s->label.source[i] = p->sources[i];
#pragma unroll
	for (int i = 0; i < OBJECT_MARKS; i++)
		s->object[0].marks[i] = p->marks[i];
	s->cursor.broken = 0;
	error = probe_path(p, &s->object[0], p->path, p->length);
	if (!error)
		error = s->class == CLASS_SYSCALLS ? probe_call(p, s) : probe_decide(p, s);
	p->verdict = s->result.verdict;
	p->rule = s->result.rule;
	p->flags = s->result.flags;
#pragma unroll
	for (int i = 0; i < AUDIT_LISTS; i++)
		p->audits[i] = s->result.audits[i];
	scratch_give(s);
	return error;
}
