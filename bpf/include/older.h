// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What Linux 5.10 lacks, under names that are the real thing on all later kernels and nothing else: the programs of these
// are the same, instruction for instruction. OLDER_KERNEL chooses, for an object of its own.
// docs/decisions/0022-linux-5.10.md has the reasons.
#ifndef MUSTER_OLDER_H
#define MUSTER_OLDER_H

#include "kernel.h"
#include "read.h"

#ifndef OLDER_KERNEL

/* Functions that the verifier reads once for each program, by what they are given. */
#define GLOBAL __noinline
#define OF_SCRATCH(type, name) __noinline type name(struct scratch *s)
#define NEAR_OF_SCRATCH(type, name) __noinline type name(struct scratch *s)
#define OF_SCRATCH1(type, name, t1, a1) __noinline type name(struct scratch *s, t1 a1)
#define OF_SCRATCH2(type, name, t1, a1, t2, a2) __noinline type name(struct scratch *s, t1 a1, t2 a2)
#define OF_SCRATCH3(type, name, t1, a1, t2, a2, t3, a3) __noinline type name(struct scratch *s, t1 a1, t2 a2, t3 a3)
#define OF_OBJECT(type, name) __noinline type name(struct object *o)
#define OF_OBJECT2(type, name, t1, a1, t2, a2) __noinline type name(struct object *o, t1 a1, t2 a2)
#define OF_BOTH(type, name) __noinline type name(struct scratch *s, struct object *o)
#define OF_BOTH1(type, name, t1, a1) __noinline type name(struct scratch *s, struct object *o, t1 a1)
#define DECLARE_OF_SCRATCH(type, name) __noinline type name(struct scratch *s)

/* A loop, and how an older kernel finds again what its steps work on. */
#define LOOP(turns, step, of) bpf_loop(turns, step, of, 0)
#define LOOPED(step, type, keys, found, given, ...)
#define LOOPED_NEAR(step, type)
#define LOOP_LONG(turns, step, of) bpf_loop(turns, step, of, 0)
#define LOOPED_LONG(step, type, keys, passed, found, given, ...)

#define current_task() bpf_get_current_task_btf()
#define current_registers() ((struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf()))

/* A member, by way of others, of what the verifier trusts. */
#define TRUSTED(task, ...) ___arrow(task, ##__VA_ARGS__)

/* What is kept of each thread. */
#define TASK_MAP(name, type_of)                                                                                        \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_TASK_STORAGE);                                                               \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__type(key, int);                                                                                      \
		__type(value, type_of);                                                                                \
	} name SEC(".maps")
#define TASK_GET(map, task, flags) bpf_task_storage_get(&map, task, 0, flags)
#define TASK_DROP(map, task) bpf_task_storage_delete(&map, task)

#define FETCH_ADD(p, n) __sync_fetch_and_add(p, n)
/* Sets what was 0; false when somebody else was first. */
#define SET_ONCE(p, value) (__sync_val_compare_and_swap(p, 0, value) == 0)
#define TAKE(p) SET_ONCE(p, 1)
#define GIVE(p) __sync_lock_test_and_set(p, 0)

#else

struct scratch;
struct object;
static __always_inline struct scratch *scratch_again(u32 slot);
static __always_inline struct object *object_at(u32 self);

/* Memory cannot be handed to a function that is read once: that is given the number by which it finds the memory. */
#define GIVEN(type, name, parameters, keys, found, given)                                                              \
	static __always_inline type name##_found parameters;                                                           \
	__noinline type name##_by_key keys                                                                             \
	{                                                                                                              \
		return name##_found found;                                                                             \
	}                                                                                                              \
	static __always_inline type name parameters                                                                    \
	{                                                                                                              \
		return name##_by_key given;                                                                            \
	}                                                                                                              \
	static __always_inline type name##_found parameters

#define GLOBAL static __noinline
#define OF_SCRATCH(type, name) GIVEN(type, name, (struct scratch * s), (u32 slot), (scratch_again(slot)), (s->slot))
#define NEAR_OF_SCRATCH(type, name) static __always_inline type name(struct scratch *s)
#define OF_SCRATCH1(type, name, t1, a1)                                                                                \
	GIVEN(type, name, (struct scratch * s, t1 a1), (u32 slot, t1 a1), (scratch_again(slot), a1), (s->slot, a1))
#define OF_SCRATCH2(type, name, t1, a1, t2, a2)                                                                        \
	GIVEN(type, name, (struct scratch * s, t1 a1, t2 a2), (u32 slot, t1 a1, t2 a2), (scratch_again(slot), a1, a2), \
	      (s->slot, a1, a2))
#define OF_SCRATCH3(type, name, t1, a1, t2, a2, t3, a3)                                                                \
	GIVEN(type, name, (struct scratch * s, t1 a1, t2 a2, t3 a3), (u32 slot, t1 a1, t2 a2, t3 a3),                  \
	      (scratch_again(slot), a1, a2, a3), (s->slot, a1, a2, a3))
#define OF_OBJECT(type, name) GIVEN(type, name, (struct object * o), (u32 self), (object_at(self)), (o->cursor.self))
#define OF_OBJECT2(type, name, t1, a1, t2, a2)                                                                         \
	GIVEN(type, name, (struct object * o, t1 a1, t2 a2), (u32 self, t1 a1, t2 a2), (object_at(self), a1, a2),      \
	      (o->cursor.self, a1, a2))
#define OF_BOTH(type, name)                                                                                            \
	GIVEN(type, name, (struct scratch * s, struct object * o), (u32 slot, u32 self),                               \
	      (scratch_again(slot), object_at(self)), (s->slot, o->cursor.self))
#define OF_BOTH1(type, name, t1, a1)                                                                                   \
	GIVEN(type, name, (struct scratch * s, struct object * o, t1 a1), (u32 slot, u32 self, t1 a1),                 \
	      (scratch_again(slot), object_at(self), a1), (s->slot, o->cursor.self, a1))
#define DECLARE_OF_SCRATCH(type, name) static __always_inline type name(struct scratch *s)

/* The compiler sees which arguments a function does not look at, and hands it none; the verifier wants them. */
#define LOOKED_AT(x) asm volatile("" : : "r"(x))

/* A step by what its context is found by. */
#define LOOPED(step, type, keys, found, given, ...)                                                                    \
	__noinline int step##_by_key keys                                                                              \
	{                                                                                                              \
		type of = __VA_ARGS__;                                                                                 \
                                                                                                                       \
		LOOKED_AT(index);                                                                                      \
		return (found) ? step(index, &of) : 1;                                                                 \
	}                                                                                                              \
	static __always_inline int step##_turn(u32 index, type *of)                                                    \
	{                                                                                                              \
		return step##_by_key given;                                                                            \
	}

/* One of few turns is read for each of them. */
#define LOOPED_NEAR(step, type)                                                                                        \
	static __always_inline int step##_turn(u32 index, type *of)                                                    \
	{                                                                                                              \
		return step(index, of);                                                                                \
	}

/* The verifier follows each turn of a bounded loop, and keeps the way out of each until it comes back: of 8,192 in all. */
#define LOOP(turns, step, of)                                                                                          \
	do {                                                                                                           \
		_Pragma("clang loop unroll(disable)") for (u32 turn__ = 0; turn__ < (turns);                           \
							   turn__++) if (step##_turn(turn__, of)) break;               \
	} while (0)

/* A long loop is one of loops of LOOP_TURNS, which are functions. */
#define LOOP_TURNS 128
#define LOOPED_LONG(step, type, keys, passed, found, given, ...)                                                       \
	LOOPED(step, type, keys, found, given, __VA_ARGS__)                                                            \
	__noinline int step##_turns keys                                                                               \
	{                                                                                                              \
		_Pragma("clang loop unroll(disable)") for (u32 turn = 0; turn < LOOP_TURNS;                            \
							   turn++, index++) if (step##_by_key passed) return 1;        \
		return 0;                                                                                              \
	}                                                                                                              \
	static __always_inline int step##_some(u32 index, type *of)                                                    \
	{                                                                                                              \
		return step##_turns given;                                                                             \
	}
#define LOOP_LONG(turns, step, of)                                                                                     \
	do {                                                                                                           \
		_Pragma("clang loop unroll(disable)") for (u32 turn__ = 0; turn__ < (turns);                           \
							   turn__ += LOOP_TURNS) if (step##_some(turn__, of)) break;   \
	} while (0)

#define current_task() ((struct task_struct *)bpf_get_current_task())

#define THREAD_SIZE 16384 /* of x86-64 */
#define current_registers()                                                                                            \
	((struct pt_regs *)(BPF_CORE_READ(current_task(), stack) + THREAD_SIZE - bpf_core_type_size(struct pt_regs)))

#define TRUSTED(task, ...) BPF_CORE_READ(task, ##__VA_ARGS__)

/* There is no storage of tasks: tables by their addresses, which task_freed keeps tidy. */
#define TASK_MAP(name, type_of)                                                                                        \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(max_entries, 65536);                                                                            \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__type(key, u64);                                                                                      \
		__type(value, type_of);                                                                                \
	} name SEC(".maps");                                                                                           \
	static const type_of no_##name;                                                                                \
	static __always_inline type_of *name##_of(struct task_struct *task, u64 flags)                                 \
	{                                                                                                              \
		u64 key = (u64)task;                                                                                   \
		type_of *found = bpf_map_lookup_elem(&name, &key);                                                     \
                                                                                                                       \
		if (found || !(flags & BPF_LOCAL_STORAGE_GET_F_CREATE))                                                \
			return found;                                                                                  \
		bpf_map_update_elem(&name, &key, &no_##name, BPF_NOEXIST);                                             \
		return bpf_map_lookup_elem(&name, &key);                                                               \
	}                                                                                                              \
	_Static_assert(1, "")
#define TASK_GET(map, task, flags) map##_of(task, flags)
#define TASK_DROP(map, task)                                                                                           \
	({                                                                                                             \
		u64 key__ = (u64)(task);                                                                               \
		bpf_map_delete_elem(&map, &key__);                                                                     \
	})

/* Of atomic operations there is the one that adds and answers nothing: what is counted so is a CPU's own, or may be off by
 * one. The compiler would make another one of adding 0. */
#define FETCH_ADD(p, n)                                                                                                \
	({                                                                                                             \
		typeof(*(p)) was__ = *(volatile typeof(*(p)) *)(p), n__ = (n);                                         \
                                                                                                                       \
		asm volatile("" : "+r"(n__));                                                                          \
		__sync_fetch_and_add(p, n__);                                                                          \
		was__;                                                                                                 \
	})
/* Of two on two CPUs at the same moment one may get the answer that it has set what the other did. */
#define SET_ONCE(p, value)                                                                                             \
	(!*(volatile typeof(*(p)) *)(p) &&                                                                             \
	 (*(volatile typeof(*(p)) *)(p) = (value), FETCH_ADD(p, 0), *(volatile typeof(*(p)) *)(p) == (value)))
/* Of a CPU's own: no program is preempted there, and one that interrupts another ends before that goes on. */
#define TAKE(p) (*(volatile typeof(*(p)) *)(p) ? false : (*(volatile typeof(*(p)) *)(p) = 1, true))
#define GIVE(p) (*(volatile typeof(*(p)) *)(p) = 0)

#endif
#endif
