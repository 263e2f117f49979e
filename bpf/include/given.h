// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The path that a system call was given, for a call that failed before it came to a file: put behind the directory
// that it is relative to, without "." and "..", but with its symbolic links as they are. There is no truer one.
#ifndef MUSTER_GIVEN_H
#define MUSTER_GIVEN_H

#include "calls.h"

struct given {
	struct scratch *scratch;
};

/* A component stands at s->data[low, high): cursor.low and cursor.high. It goes before the path that is there. */
static __always_inline void given_component(struct scratch *s)
{
	struct object *o = &s->object[0];
	u64 from = s->cursor.low, length = s->cursor.high - from, at = o->start;
	u64 first = from;

	if (!length)
		return;
	BOUND(first, EVENT_DATA - 1);
	if (length == 1 && s->data[first] == '.')
		return;
	if (length == 2 && s->data[first] == '.' && s->data[first + 1] == '.') {
		s->cursor.values[0]++;
		return;
	}
	if (s->cursor.values[0]) {
		s->cursor.values[0]--;
		return;
	}
	if (length > 255 || at < length + 2) {
		s->cursor.broken = 1;
		return;
	}
	at -= length + 1;
	o->start = at;
	BOUND(at, PATH_END - 1);
	BOUND(length, 255);
	BOUND(from, EVENT_DATA - 1);
	o->buffer[at] = '/';
	bpf_probe_read_kernel(&o->buffer[at + 1], length, &s->data[from]);
}

/* One byte, from the end. cursor.at is how many are left. */
static long given_step(u32 index, struct given *g)
{
	struct scratch *s = g->scratch;
	u64 at = s->cursor.at;

	if (!at || s->cursor.broken)
		return 1;
	at--;
	s->cursor.at = at;
	BOUND(at, EVENT_DATA - 1);
	if (s->data[at] != '/')
		return 0;
	s->cursor.low = at + 1;
	given_component(s);
	s->cursor.high = at;
	return 0;
}

LOOPED_LONG(given_step, struct given, (u32 index, u32 slot), (index, slot), of.scratch, (index, of->scratch->slot),
	    { .scratch = scratch_again(slot) })

/* Makes the path of object[0] of the size bytes in s->data, which begin with a slash. */
static __noinline void given_build(struct scratch *s, u32 size)
{
	struct given g = { .scratch = s };
	struct object *o = &s->object[0];

	o->start = PATH_END;
	s->cursor.at = size;
	s->cursor.high = size;
	s->cursor.broken = 0;
	s->cursor.values[0] = 0;
	LOOP_LONG(2 * PATH_END, given_step, &g);
	if (s->cursor.broken) {
		s->cursor.broken = 0;
		o->status = PATH_LONG;
		return;
	}
	if (o->start == PATH_END) {
		o->start = PATH_END - 1;
		o->buffer[PATH_END - 1] = '/';
	}
	o->status = PATH_OK;
}

static __always_inline struct file *descriptor_file(int fd)
{
	struct task_struct *task = current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = 0;

	if (!table || fd < 0 || (u32)fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* What the path begins at: the root, which may be a chroot's, the working directory, or a descriptor's file. */
static __always_inline bool given_base(struct made *m, struct object *o, bool absolute)
{
	struct task_struct *task = current_task();
	int fd = m->call->base ? (int)made_argument(m, m->call->base) : AT_FDCWD;
	struct path path = {};
	struct file *file;

	if (absolute) {
		path.mnt = BPF_CORE_READ(task, fs, root.mnt);
		path.dentry = BPF_CORE_READ(task, fs, root.dentry);
	} else if (fd == AT_FDCWD) {
		path.mnt = BPF_CORE_READ(task, fs, pwd.mnt);
		path.dentry = BPF_CORE_READ(task, fs, pwd.dentry);
	} else {
		file = descriptor_file(fd);
		if (!file)
			return false;
		path.mnt = BPF_CORE_READ(file, f_path.mnt);
		path.dentry = BPF_CORE_READ(file, f_path.dentry);
	}
	object_set(o, path.mnt, path.dentry, 0);
	walk(o);
	return o->status == PATH_OK;
}

/* The path that the call was given, into object[0]. Answers false when it went to a file, which has been judged, or
 * when there is nothing to read. An empty path means the descriptor's own file. */
static __noinline bool given_path(struct made *m, struct scratch *s, bool failed)
{
	struct object *o = &s->object[0];
	u64 address = made_argument(m, m->call->path), start, length;
	char first = 0;
	long n;

	if (address && bpf_probe_read_user(&first, 1, (void *)address))
		return false;
	if (first && !failed)
		return false;
	if (!given_base(m, o, first == '/') || !first)
		return o->status == PATH_OK;
	start = o->start;
	length = PATH_END - start;
	BOUND(start, PATH_END - 1);
	BOUND(length, PATH_END - 1);
	if (start + length > PATH_END || bpf_probe_read_kernel(s->data, length, &o->buffer[start]))
		return false;
	s->data[length] = '/';
	n = bpf_probe_read_user_str(&s->data[length + 1], PATH_END, (void *)address);
	o->status = PATH_NONE;
	if (n > 0)
		given_build(s, length + n);
	return true;
}

#endif
