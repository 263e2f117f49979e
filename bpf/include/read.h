// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Reading the kernel's structures by their addresses. From 6.2 bpf_rdonly_cast gives an address a type, and a
// member is then one guarded load; before, the helper bpf_probe_read_kernel is called, ten times as dear. Either
// answers whatever is there, also when the structure has been freed meanwhile: who needs the truth checks it.
// There is an object for each: one with both ways in it would be twice as long, and taking away the way that is
// not taken is what the verifier is slowest at.
#ifndef MUSTER_READ_H
#define MUSTER_READ_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#ifdef PROBING

#define LOOSE(p) (p)
#define SEEN(p, member) READ(p, member)

/* One member of *p. */
#define READ(p, member)                                                                                                \
	({                                                                                                             \
		typeof((p)->member) value__;                                                                           \
		bpf_core_read(&value__, sizeof(value__), &(p)->member);                                                \
		value__;                                                                                               \
	})

#else

extern void *bpf_rdonly_cast(const void *address, u32 type) __ksym;

/* A pointer of which the verifier knows its type and nothing else. Of a pointer that is loaded by way of one that it
 * trusts, an argument or the caller's task, it asks whether that is to be trusted as well: it goes through all the
 * kernel's types up to four times, which is a million instructions each time. */
#define LOOSE(p) ((typeof(p))bpf_rdonly_cast(p, bpf_core_type_id_kernel(typeof(*(p)))))

/* One member of *p. */
#define READ(p, member) (LOOSE(p)->member)

/* The same, where p is what LOOSE has made. */
#define SEEN(p, member) ((p)->member)

#endif

#endif
