// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What every hook asks: may the caller do s->operation on s->object[0] (and [1])?
#ifndef MUSTER_JUDGE_H
#define MUSTER_JUDGE_H

#include "match.h"
#include "label.h"
#include "event.h"
#include "args.h"

/* The agent's own operations are let through, and looked for only when something is about to be denied. */
static __always_inline bool is_agent(void)
{
	if (!caller_is_agent())
		return false;
	count(COUNT_AGENT);
	return true;
}

/* What cannot be decided is denied when the class has a Block or an Allow rule. Without a readable header
 * there is no ruleset to obey: permitted, counted, and found by the agent's next look. */
__noinline int fails_closed(u32 class)
{
	void *image = host_image();
	struct image_header *h = image ? image_head(image) : 0;

	return h && class_flags(h, class) & CLASS_CLOSED && h->mode == MODE_ENFORCE && !is_agent();
}

/* Whether the ruleset of the caller's subject has this flag of a class. */
static __always_inline bool has_flag(u32 class, u32 flag)
{
	void *image = host_image();
	struct image_header *h = image ? image_head(image) : 0;

	return h && class_flags(h, class) & flag;
}

/* Whether a hook has anything to do. names: the operation changes what a name means. */
static __always_inline bool concerns(u32 class, bool names)
{
	struct task_struct *task = current_task();
	void *image = host_image();
	struct image_header *h;
	u32 flags;

	if (!image || TRUSTED(task, flags) & PF_KTHREAD)
		return false;
	h = image_head(image);
	if (!h) {
		count(COUNT_IMAGE);
		return false;
	}
	flags = class_flags(h, class);
	return flags & (CLASS_HAS_RULES | CLASS_VISIBLE) || (names && flags & CLASS_WATCHES);
}

/* The image, when it has rules of a class whose objects are known by numbers, and the caller is a program. */
static __always_inline struct image_header *rules_in(void *image, u32 class)
{
	struct task_struct *task = current_task();
	struct image_header *h;

	if (!image || TRUSTED(task, flags) & PF_KTHREAD)
		return 0;
	h = image_head(image);
	if (!h) {
		count(COUNT_IMAGE);
		return 0;
	}
	return class_flags(h, class) & (CLASS_HAS_RULES | CLASS_VISIBLE) ? h : 0;
}

static __always_inline struct image_header *rules_of(u32 class)
{
	return rules_in(host_image(), class);
}

/* Whether the image says anything of one of these numbers to the caller: nearly always not, and its label
 * knows. */
static __always_inline bool speaks_of(struct image_header *h, u32 class, u64 names)
{
	struct label *l = TASK_GET(labels, current_task(), 0);

	if (class_flags(h, class) & CLASS_VISIBLE)
		return true;
	if (!l || !(l->flags & LABEL_KNOWN) || l->image != h->id)
		return true;
	return l->names[class - CLASS_NETWORK] & names;
}

/* Whether the caller has an allow-list of the class: then something decides on what no rule names. */
static __always_inline bool has_posture(struct image_header *h, u32 class)
{
	struct label *l;

	if (!(class_flags(h, class) & CLASS_POSTURE))
		return false;
	l = TASK_GET(labels, current_task(), 0);
	return !l || !(l->flags & LABEL_KNOWN) || l->image != h->id || posture_in(l->postures, class);
}

static __always_inline bool concerns_names(u32 class, u64 names)
{
	struct image_header *h = rules_of(class);

	return h && speaks_of(h, class, names);
}

static __always_inline void begin(struct scratch *s, u32 class, u32 operation, u32 hook)
{
	s->class = class;
	s->operation = operation;
	s->hook = hook;
	s->object[0].present = 0;
	s->object[1].present = 0;
	s->arguments.state = ARGUMENTS_UNKNOWN;
	s->arguments.rule = 0;
	s->by_caller = 0;
	s->quiet = QUIET_NOT;
	s->lenient = LENIENT_NOT;
	__builtin_memset(&s->result, 0, sizeof(s->result));
}

/* An object without a path, known by numbers. Modifiers: there is nothing to own or to read. */
static __always_inline void object_named(struct object *o, u64 names)
{
	object_set(o, 0, 0, 0);
	o->status = PATH_NAMED;
	o->names = names;
	if (TRUSTED(LOOSE(current_task()), signal, tty))
		o->attributes = ROW_TERMINAL;
}

/* Owner, read, terminal: the first and the last are looked for when a rule asks. */
static __always_inline void attributes_set(struct object *o, bool read)
{
	o->unasked = ROW_OWNER | ROW_TERMINAL;
	if (read)
		o->attributes |= ROW_READ;
}

/* A terminal that a program was given may come from a container that is gone. */
static __always_inline void unbuildable(struct scratch *s, struct object *o)
{
	if (s->lenient == LENIENT_ALLOW_LIST && o->status == PATH_DETACHED)
		return;
	count(o->status == PATH_RACED ? COUNT_RACED : COUNT_UNBUILDABLE);
	if (!(s->flags & CLASS_CLOSED)) {
		if (s->flags & CLASS_DRY)
			dry_unbuildable(s);
		return;
	}
	s->result.verdict = VERDICT_DENY;
	s->result.flags = EVENT_UNBUILDABLE;
	s->result.rule = 0;
}

/* What the image cannot tell because it does not read. */
static __always_inline void broken(struct scratch *s)
{
	count(COUNT_IMAGE);
	s->result.flags |= EVENT_FALLBACK;
	if (s->flags & CLASS_CLOSED)
		s->result.verdict = VERDICT_DENY;
}

/* Whether anybody hears of what the rules have decided. */
static __always_inline bool notable(struct scratch *s)
{
	return s->result.verdict == VERDICT_DENY || s->result.flags || s->result.audits[0];
}

/* Whether it is told though no rule speaks of it. Of a file that is open or in memory the opening was told, and of one
 * below a stacked filesystem, which is known without a mount, that in front. */
static __always_inline bool visible(struct scratch *s)
{
	struct object *o = &s->object[0];

	if (!(s->flags & CLASS_VISIBLE) || s->operation == OP_READ || s->operation == OP_WRITE ||
	    s->operation == OP_MAP)
		return false;
	if (o->home && !o->mount)
		return false;
	return o->status == PATH_OK || o->status == PATH_NAMED ||
	       (o->status == PATH_INTERNAL && s->class == CLASS_PROCESS);
}

/* Takes the image that is to decide. Answers false when there is none. */
static __always_inline bool judge_image(struct scratch *s)
{
	void *image = host_image();
	struct image_header *h = image ? image_head(image) : 0;

	if (!h)
		return false;
	s->again = 0;
	s->image = h->id;
	s->mode = h->mode;
	s->flags = class_flags(h, s->class);
	s->has_marks = h->marks != 0;
	return true;
}

/* The classes of the sources in it. */
OF_SCRATCH(int, judge_sources)
{
	if (!s)
		return 0;
	if (!s->by_caller || !classify_caller(s))
		classify_current(s);
	s->sourced = 1;
	return 0;
}

/* Above every rule's. */
#define PRIORITY_DECIDED (~0U)

static __always_inline void judge_built(struct scratch *s, struct object *o, enum deciding what)
{
	if (s->result.verdict == VERDICT_DENY) {
		/* What is denied stays so, by what denied it: the reports of the other objects are added. */
		s->result.priority = PRIORITY_DECIDED;
	} else {
		s->result.before = s->result.flags;
		s->result.priority = 0;
		s->result.rule = 0;
		s->result.flags = 0;
	}
	decide(s, o, what);
	if (s->cursor.broken)
		broken(s);
	/* The denied object alone decides, and names the event. Of two that an allow-list would have denied in
	 * another posture the event tells that, and no rule. */
	if (s->result.before && s->result.verdict != VERDICT_DENY) {
		s->result.flags |= s->result.before;
		s->result.rule = 0;
	}
}

/* In another mount namespace the object has a second name, the host's, and is judged by that one too. Where root of the
 * host made the namespace (a service with its own /tmp) no allow-list has to know both. */
static __always_inline bool home_begin(struct scratch *s, struct object *o)
{
	if (o->tree == TREE_HOST || o->home || s->lenient == LENIENT_NAME || o->status != PATH_OK)
		return false;
	walk_home(o);
	s->lenient_before = s->lenient;
	if (o->tree == TREE_ROOT)
		s->lenient = LENIENT_ALLOW_LIST;
	return true;
}

/* What is told is the name that decided. denied: something else did before. */
static __always_inline void home_end(struct scratch *s, struct object *o, bool denied)
{
	s->lenient = s->lenient_before;
	if (denied || (s->result.verdict != VERDICT_DENY && (notable(s) || visible(s))))
		walk(o);
}

/* Decides one object by the name that the caller used, or by its home name. When another one was denied already it is
 * asked what is reported of this one. A pipe, socket or memfd is no object of
 * class file; run, a memfd has no name. */
static __always_inline int judge_name(struct scratch *s, struct object *o, bool home, enum deciding what)
{
	bool denied;

	if (!s || !o || !o->present)
		return 0;
	denied = s->result.verdict == VERDICT_DENY;
	if (denied && !(s->flags & CLASS_AUDITS))
		return 0;
	if (home && !home_begin(s, o))
		return 0;
	if (o->status == PATH_NONE)
		walk(o);
	else if (o->status == PATH_BELOW)
		walk_home(o);
	if (o->status == PATH_OK || (o->status == PATH_INTERNAL && s->class != CLASS_FILE)) {
		if (s->has_marks)
			marks_of(o);
		judge_built(s, o, what);
		/* A name that somebody gave a file in a namespace of their own protects nothing, or they could have
		 * any file protected. */
		if (o->tree != TREE_HOST && !o->home)
			o->protects = 0;
		if (o->protects && o->inode)
			mark_add(o->inode, o->protects);
	} else if (!denied && o->status != PATH_INTERNAL && o->status != PATH_HOMELESS) {
		unbuildable(s, o);
	}
	if (home)
		home_end(s, o, denied);
	return 0;
}

OF_BOTH1(int, judge_path_name, bool, home)
{
	return judge_name(s, o, home, DECIDING_PATHS);
}

OF_BOTH1(int, judge_start_name, bool, home)
{
	return judge_name(s, o, home, DECIDING_CONDITIONS);
}

/* Makes o's path once more by the name that the caller used, when a decision is made again. */
static __always_inline void object_again(struct object *o)
{
	o->protects = 0;
	if (o->present && o->home)
		o->status = o->mount ? PATH_NONE : PATH_BELOW;
}

/* A ruleset is published every few seconds at most; an attempt takes microseconds. */
#define JUDGE_ATTEMPTS 4

static __always_inline void judge_one(struct scratch *s, struct object *o, bool home, enum deciding what)
{
	if (what == DECIDING_PATHS)
		judge_path_name(s, o, home);
	else
		judge_start_name(s, o, home);
}

static __always_inline void judge_objects(struct scratch *s, enum deciding what)
{
	judge_one(s, &s->object[0], false, what);
	if (s->object[0].tree != TREE_HOST)
		judge_one(s, &s->object[0], true, what);
	if (s->object[1].present) {
		judge_one(s, &s->object[1], false, what);
		judge_one(s, &s->object[1], true, what);
	}
}

/* Answers true when s->result holds the decision of one ruleset. */
static __always_inline int judge_attempt(struct scratch *s, enum deciding what)
{
	if (!s)
		return 0;
	__builtin_memset(&s->result, 0, sizeof(s->result));
	if (!judge_image(s))
		return 1;
	s->sourced = 0;
	if (what != DECIDING_PATHS)
		judge_sources(s);
	if (what == DECIDING_NUMBERS) {
		judge_built(s, &s->object[0], what);
		return !s->again;
	}
	judge_objects(s, what);
	/* Most programs are in no rule that depends on arguments; for the others the decision is made again. */
	if (what == DECIDING_CONDITIONS && s->arguments.state == ARGUMENTS_WANTED)
		arguments_read(s);
	else if (!s->again)
		return 1;
	object_again(&s->object[0]);
	object_again(&s->object[1]);
	return 0;
}

NEAR_OF_SCRATCH(int, judge_path_attempt)
{
	return judge_attempt(s, DECIDING_PATHS);
}

NEAR_OF_SCRATCH(int, judge_start_attempt)
{
	return judge_attempt(s, DECIDING_CONDITIONS);
}

NEAR_OF_SCRATCH(int, judge_number_attempt)
{
	return judge_attempt(s, DECIDING_NUMBERS);
}

static __always_inline bool judge_once(struct scratch *s, enum deciding what)
{
	switch (what) {
	case DECIDING_PATHS:
		return judge_path_attempt(s);
	case DECIDING_CONDITIONS:
		return judge_start_attempt(s);
	default:
		return judge_number_attempt(s);
	}
}

/* No attempt saw one ruleset from its beginning to its end. */
static __always_inline void undecided(struct scratch *s)
{
	count(COUNT_RACED);
	__builtin_memset(&s->result, 0, sizeof(s->result));
	s->result.flags = EVENT_FALLBACK;
	if (s->flags & CLASS_CLOSED)
		s->result.verdict = VERDICT_DENY;
}

/* What becomes of what the rules have decided. Answers true when the operation is to be denied. */
OF_SCRATCH(int, judge_end)
{
	if (!s || !s->image)
		return 0;
	if (s->result.verdict == VERDICT_DENY && s->mode == MODE_AUDIT) {
		s->result.verdict = VERDICT_PERMIT;
		s->result.flags |= EVENT_WOULD_DENY;
	}
	if (s->result.verdict == VERDICT_DENY && is_agent())
		return 0;
	if (!notable(s) && !s->quiet && visible(s) && !caller_is_agent())
		s->result.flags = EVENT_VISIBLE;
	if (notable(s) && (!s->quiet || (s->result.verdict == VERDICT_DENY && s->quiet != QUIET_ALWAYS))) {
		if (!s->sourced)
			judge_sources(s);
		event_emit(s);
	}
	return s->result.verdict == VERDICT_DENY;
}

static __always_inline int judge_all(struct scratch *s, enum deciding what)
{
	bool decided = false;

	if (!s)
		return 0;
	s->image = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < JUDGE_ATTEMPTS && !decided; i++)
		decided = judge_once(s, what);
	if (!decided)
		undecided(s);
	return notable(s) || visible(s) ? judge_end(s) : 0;
}

/* The three ways to ask: of files and of questions for names, of what is run or mapped to be run, and of what has no
 * path. Each answers true when the operation is to be denied. */
static __always_inline int judge_path(struct scratch *s)
{
	return judge_all(s, DECIDING_PATHS);
}

NEAR_OF_SCRATCH(int, judge_start)
{
	return judge_all(s, DECIDING_CONDITIONS);
}

NEAR_OF_SCRATCH(int, judge_number)
{
	return judge_all(s, DECIDING_NUMBERS);
}

#endif
