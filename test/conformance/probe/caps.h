// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#ifndef MUSTER_PROBE_CAPS_H
#define MUSTER_PROBE_CAPS_H

#include <linux/capability.h>

// Numbers that older headers lack.
#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#define CAP_BPF     39
#endif
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

// A capability and an operation that needs it and no other one. Files in memory stand in for files
// wherever that is enough: they are no objects of class file.
struct capability {
	const char *name;
	unsigned number;
	int (*run)(unsigned cap);
};

extern const struct capability system_capabilities[];

int memory_file(void);
int strangers_file(void);

#endif
