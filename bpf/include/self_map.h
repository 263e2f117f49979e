// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Self-protection: which maps and programs are the agent's.
#ifndef MUSTER_SELF_MAP_H
#define MUSTER_SELF_MAP_H

#include "self.h"

#define BPF_PROG_LOAD 5
#define BPF_LINK_UPDATE 29
#define BPF_LINK_DETACH 34
#define BPF_PROG_TYPE_TRACING 26
#define BPF_PROG_TYPE_LSM 29
#define BPF_MODIFY_RETURN 26
#define BPF_TYPE_AT 0 /* of union bpf_attr, uapi */
#define BPF_ATTACH_TYPE_AT 68
#define SELF_MAPS 48 /* of one program */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

enum bpf_map_type {
	BPF_MAP_TYPE_UNSPEC,
};

struct bpf_map___self {
	enum bpf_map_type map_type;
	u32 key_size;
	u32 value_size;
	u32 map_flags;
};

struct bpf_prog_aux {
	u32 used_map_cnt;
	struct bpf_map **used_maps;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	struct bpf_prog *prog;
};

struct file___self {
	void *private_data;
};

#pragma clang attribute pop

enum lockdown_reason {
	LOCKDOWN_BPF_WRITE_USER = 1000, /* the kernel's own number is read from its BTF */
};

/* Whether a map is the agent's: one of those that its programs share, or one of the kinds that it makes anew for every
 * ruleset and for counting. */
static __always_inline bool self_map_is_own(struct bpf_map *map)
{
	struct bpf_map___self *m = (void *)map;
	void *p = map;
	u32 kind, key, value;

	if (p == (void *)&slots || p == (void *)&config || p == (void *)&counters || p == (void *)&sequences ||
	    p == (void *)&labels || p == (void *)&chains || p == (void *)&starts || p == (void *)&calls ||
	    p == (void *)&marks || p == (void *)&flows || p == (void *)&owners || p == (void *)&scripts ||
	    p == (void *)&events || p == (void *)&folds || p == (void *)&scratches || p == (void *)&agent ||
	    p == (void *)&places || p == (void *)&self_marks || p == (void *)&clearances || p == (void *)&clearing)
		return true;
	kind = BPF_CORE_READ(m, map_type);
	key = BPF_CORE_READ(m, key_size);
	value = BPF_CORE_READ(m, value_size);
	if (kind == BPF_MAP_TYPE_ARRAY && value == IMAGE_PAGE && BPF_CORE_READ(m, map_flags) & BPF_F_INNER_MAP)
		return true;
	return kind == BPF_MAP_TYPE_HASH && key == sizeof(struct fold_key) && value == sizeof(struct fold);
}

/* Whether a program could answer for ours, by taking the place of a security function's answer. Programs of security hooks run
 * the newest first, and one that returns more than 0 keeps the others from running: to bpf() that is no refusal. */
static __always_inline bool self_could_answer(u32 type, u32 attach_type)
{
	if (type == BPF_PROG_TYPE_LSM)
		return !lsm_returns_checked;
	return type == BPF_PROG_TYPE_TRACING && attach_type == BPF_MODIFY_RETURN;
}

/* Whether a program is the agent's: it works on the settings, on labels, marks or counters, which nobody else can open. */
static __noinline bool self_program_is_own(struct bpf_prog *program)
{
	struct bpf_map **maps = BPF_CORE_READ(program, aux, used_maps), *map;
	u32 maps_count = BPF_CORE_READ(program, aux, used_map_cnt);

	for (u32 i = 0; i < SELF_MAPS; i++) {
		void *p;

		if (i >= maps_count)
			return false;
		map = 0;
		bpf_probe_read_kernel(&map, sizeof(map), &maps[i]);
		p = map;
		if (p == (void *)&config || p == (void *)&counters || p == (void *)&labels || p == (void *)&marks ||
		    p == (void *)&self_marks || p == (void *)&clearing)
			return true;
	}
	return false;
}

#endif
