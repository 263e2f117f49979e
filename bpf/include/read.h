// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Reading the kernel's structures by their addresses. From 6.2 bpf_rdonly_cast gives an address a type, and a
// member is then one guarded load; before, the helper bpf_probe_read_kernel is called, ten times as dear. Either
// answers whatever is there, also when the structure has been freed meanwhile: who needs the truth checks it.
#ifndef MUSTER_READ_H
#define MUSTER_READ_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

extern void *bpf_rdonly_cast(const void *address, u32 type) __ksym __weak;

/* Known when the program is loaded: the verifier removes the way that is not taken. */
#define CAN_CAST (bpf_rdonly_cast != 0)

#define TYPED(p) ((typeof(p))bpf_rdonly_cast(p, bpf_core_type_id_kernel(typeof(*(p)))))

/* One member of *p. */
#define READ(p, member)                                                                                                \
	({                                                                                                             \
		typeof((p)->member) value__;                                                                           \
		if (CAN_CAST)                                                                                          \
			value__ = TYPED(p)->member;                                                                    \
		else                                                                                                   \
			bpf_core_read(&value__, sizeof(value__), &(p)->member);                                        \
		value__;                                                                                               \
	})

#endif
