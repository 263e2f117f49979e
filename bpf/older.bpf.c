//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What Linux 5.10 needs beside the others' programs.

/* A thread is gone: another one may get its address. */
SEC("lsm/task_free")
void BPF_PROG(task_freed, struct task_struct *task)
{
	TASK_DROP(labels, task);
	TASK_DROP(chains, task);
	TASK_DROP(starts, task);
	TASK_DROP(calls, task);
}
