//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// allowedArgs: what a start is judged by, and that it is what the program gets.

static __always_inline struct start *start_of(u64 flags)
{
	return TASK_GET(starts, current_task(), flags);
}

/* Prepares s->arguments for a look at the file that is to be run: the caller's, behind what the kernel has put
 * before them for the interpreter of a script. */
static __always_inline void arguments_begin(struct scratch *s, struct linux_binprm *bprm)
{
	struct arguments *a = &s->arguments;
	u32 all = bprm->argc > 0 ? bprm->argc - 1 : 0;
	struct start *st = start_of(BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!st) {
		count(COUNT_LABEL_MEMORY);
		return;
	}
	if (!st->passes++) {
		st->count = all;
		st->count_before = 0;
		st->rule = 0;
	}
	/* Another binary format put there what is not known. */
	if (st->count_before > SCRIPT_ARGUMENTS || st->count_before + st->count != all)
		return;
	for (int i = 0; i < SCRIPT_ARGUMENTS; i++)
		a->hashes[i] = st->before[i];
	a->before = st->count_before;
	a->count = all;
	a->state = ARGUMENTS_UNREAD;
}

/* A permitted start whose rule depended on the arguments is watched until nobody can change them. */
static __always_inline void arguments_watch(struct scratch *s)
{
	struct start *st = start_of(0);

	if (!st || s->arguments.state != ARGUMENTS_KNOWN || !s->arguments.rule || s->mode != MODE_ENFORCE)
		return;
	st->rule = s->arguments.rule;
	st->image = s->image;
	st->print = s->arguments.print;
}

static __always_inline bool is_blank(u8 c)
{
	return c == ' ' || c == '\t';
}

enum where {
	BEFORE_NAME,
	IN_NAME,
	BEHIND_NAME,
	IN_ARGUMENT,
};

/* Looks for the argument in "#! NAME ARGUMENT" as the kernel finds it: from cursor.low to cursor.high in the
 * buffer, cursor.state says where the look has come to. In memory, as all that a loop changes: the verifier of
 * 6.1 follows one turn of what is on the stack, and removes what only the next turns come to. */
struct first_line {
	struct scratch *scratch;
};

/* Blanks at the end of a line are no part of it; those before a NUL are, even when nothing else is. */
static __always_inline void line_ends(struct cursor *l, u32 at, u8 c)
{
	if (c || l->state < BEHIND_NAME)
		return;
	if (l->state == BEHIND_NAME)
		l->low = at;
	l->state = IN_ARGUMENT;
	l->high = at;
}

static long line_step(u32 index, struct first_line *line)
{
	struct cursor *l = &line->scratch->cursor;
	u64 at = index + 2; /* behind #! */
	u8 c;

	if (at >= 255)
		return 1;
	BOUND(at, 255);
	c = line->scratch->source.buffer[at];
	if (!c || c == '\n') {
		line_ends(l, at, c);
		return 1;
	}
	if (is_blank(c)) {
		if (l->state == IN_NAME)
			l->state = BEHIND_NAME;
		return 0;
	}
	if (l->state == BEFORE_NAME)
		l->state = IN_NAME;
	if (l->state == BEHIND_NAME) {
		l->state = IN_ARGUMENT;
		l->low = at;
	}
	l->high = at + 1;
	return 0;
}

LOOPED(line_step, struct first_line, (u32 index, u32 slot), of.scratch, (index, of->scratch->slot),
       { .scratch = scratch_again(slot) })

static __always_inline void before_shift(u64 *before)
{
#pragma unroll
	for (int i = SCRIPT_ARGUMENTS - 1; i > 0; i--)
		before[i] = before[i - 1];
}

/* The kernel puts the script's name, and before it the argument of its first line, before the arguments of a
 * script when it goes on to its interpreter. */
static __always_inline int arguments_script(struct scratch *s, struct linux_binprm *bprm)
{
	struct first_line l = { .scratch = s };
	struct start *st = start_of(0);
	u64 argument = 0, name = 0;
	u32 added = 1;
	long n;

	if (!st)
		return 0;
	bpf_probe_read_kernel(s->source.buffer, sizeof(bprm->buf), bprm->buf);
	s->cursor.state = BEFORE_NAME;
	LOOP(256, line_step, &l);
	if (s->cursor.state == IN_ARGUMENT) {
		argument = bytes_hash(&s->source, s->cursor.low, s->cursor.high - s->cursor.low);
		added = 2;
	}
	n = bpf_probe_read_kernel_str(s->source.buffer, PATH_END, bprm->interp);
	if (n > 0 && n < PATH_END)
		name = bytes_hash(&s->source, 0, n - 1);
	if (!name || st->count_before + added > SCRIPT_ARGUMENTS) {
		st->count_before = SCRIPT_ARGUMENTS + 1;
		return 0;
	}
	before_shift(st->before);
	if (argument)
		before_shift(st->before);
	st->before[0] = argument ? argument : name;
	if (argument)
		st->before[1] = name;
	st->count_before += added;
	return 0;
}

static __always_inline void arguments_end(struct scratch *s, struct linux_binprm *bprm)
{
	arguments_watch(s);
	if (bprm->buf[0] == '#' && bprm->buf[1] == '!')
		arguments_script(s, bprm);
}

struct again {
	struct scratch *scratch;
	struct start *start;
	u32 before; /* strings that the kernel put before the caller's */
};

/* String index of the new program, argv[0] the first. a->listed says that all are as they were judged. */
static long again_step(u32 index, struct again *g)
{
	struct arguments *a = &g->scratch->arguments;
	struct start *st = g->start;
	u64 hash, at = index - 1;
	u32 size = 0;

	if (index > g->before + st->count) {
		a->listed = a->print == st->print;
		return 1;
	}
	hash = string_hash(g->scratch, a->address, &size);
	a->address += size;
	if (!index) {
		/* The program's own name may be of any length. */
		return !hash;
	}
	if (!hash)
		return 1;
	if (index > g->before) {
		a->print = (ROTL(a->print, 7) ^ hash) * 0x9e3779b97f4a7c15ULL;
		return 0;
	}
	if (at >= SCRIPT_ARGUMENTS || g->before != st->count_before)
		return 0;
	BOUND(at, SCRIPT_ARGUMENTS - 1);
	return st->before[at] != hash;
}

LOOPED(again_step, struct again, (u32 index, u32 slot, u32 before), (of.scratch && of.start),
       (index, of->scratch->slot, of->before),
       { .scratch = scratch_again(slot), .start = start_of(0), .before = before })

GLOBAL int arguments_same(struct scratch *s, struct start *st, u32 all, u64 address)
{
	struct again g = { .scratch = s, .start = st };

	if (!s || !st || all < st->count)
		return 0;
	g.before = all - st->count;
	s->arguments.address = address;
	s->arguments.print = 0;
	s->arguments.listed = 0;
	LOOP(ARGUMENTS + SCRIPT_ARGUMENTS + 2, again_step, &g);
	return s->arguments.listed;
}

static __always_inline void arguments_kill(struct scratch *s, struct start *st, struct file *file)
{
	bpf_send_signal(SIGKILL);
	count(COUNT_ARGUMENTS_CHANGED);
	begin(s, CLASS_PROCESS, OP_EXEC, HOOK_BPRM_COMMITTING);
	object_set(&s->object[0], LOOSE(file)->f_path.mnt, LOOSE(file)->f_path.dentry, LOOSE(file)->f_inode);
	walk(&s->object[0]);
	s->result.verdict = VERDICT_DENY;
	s->result.rule = st->rule;
	s->image = st->image;
	s->mode = MODE_ENFORCE;
	s->label.source[1] = 0;
	event_emit(s);
}

/* The strings now stand on the new program's own stack, which nobody else can write: what they say here is what
 * it gets. It is too late to refuse, not to kill. */
SEC("lsm/bprm_committing_creds")
void BPF_PROG(arguments_check, struct linux_binprm *bprm)
{
	struct start *st = start_of(0);
	struct scratch *s;

	if (!st || !st->rule)
		return;
	s = scratch_take();
	if (!s) {
		bpf_send_signal(SIGKILL);
		count(COUNT_ARGUMENTS_CHANGED);
		return;
	}
	if (!arguments_same(s, st, bprm->argc > 0 ? bprm->argc - 1 : 0, bprm->p))
		arguments_kill(s, st, bprm->file);
	st->rule = 0;
	scratch_give(s);
}
