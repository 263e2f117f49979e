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
	u32 ref, number = p->call, executable, script;
	struct image_header *h;
	struct image_call *c;
	void *image, *page;

	image = image_judged(s, &h);
	if (!image || !h->calls || number >= CALLS)
		return 0;
	classify(s);
	if (probe_path(p, &s->source, p->source_paths[0], p->source_lengths[0]))
		return -1;
	executable = directories_class(s, h->directories);
	if (probe_path(p, &s->source, p->source_paths[1], p->source_lengths[1]))
		return -1;
	script = directories_class(s, h->directories);
	for (int i = 0; i < MIDDLES; i++)
		s->within[i] = 0;
	ref = h->calls + number / 2;
	page = page_of(image, ref);
	if (!page)
		return -3;
	c = unit(page, ref, 0);
	ref = (c + (number & 1))->group;
	if (ref)
		group_decide(s, ref, executable, script);
	return s->cursor.broken ? -3 : 0;
}

static __always_inline s32 probe_decide(struct probe *p, struct scratch *s)
{
	struct object *o = &s->object[0];

	classify(s);
	/* What the hooks would not even ask about. */
	if (s->class >= CLASS_NETWORK && s->class < CLASS_NETWORK + NAMED_CLASSES &&
	    !(s->names[s->class - CLASS_NETWORK] & o->names))
		return 0;
	if (o->status == PATH_DETACHED && s->flags & CLASS_CLOSED) {
		if (s->result.verdict != VERDICT_DENY) {
			s->result.verdict = VERDICT_DENY;
			s->result.flags = EVENT_UNBUILDABLE;
			s->result.rule = 0;
		}
	} else if (o->status == PATH_DETACHED && s->flags & CLASS_DRY) {
		if (s->result.verdict != VERDICT_DENY)
			dry_unbuildable(s);
	} else {
		if (o->status == PATH_NAMED)
			judge_built(s, o, DECIDING_NUMBERS);
		else
			judge_built(s, o, DECIDING_CONDITIONS);
	}
	if (s->cursor.broken)
		return -3;
	if (p->unfinished)
		return 0;
	if (s->result.verdict == VERDICT_DENY && s->mode == MODE_AUDIT) {
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
	if (p->second) {
		s->result.verdict = p->verdict;
		s->result.rule = p->rule;
		s->result.flags = p->flags;
#pragma unroll
		for (int i = 0; i < AUDIT_LISTS; i++)
			s->result.audits[i] = p->audits[i];
	}
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
	s->chained = 0;
#pragma unroll
	for (int i = 0; i < CHAIN; i++) {
		s->chain[i] = p->chain[i];
		if (p->chain[i])
			s->chained = 1;
	}
#pragma unroll
	for (int i = 0; i < OBJECT_MARKS; i++)
		s->object[0].marks[i] = p->marks[i];
	s->sourced = 1;
	s->object[0].unasked = 0;
	s->cursor.broken = 0;
	error = judge_image(s) ? probe_path(p, &s->object[0], p->path, p->length) : -2;
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
