// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#ifndef MUSTER_MAPS_H
#define MUSTER_MAPS_H

#include "kernel.h"
#include "read.h"
#include "older.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "abi.h"

/* Addresses from kallsyms, set by the loader: clang 14 cannot take them as __ksym. 0 where they are hidden. */
const volatile u64 rename_lock_addr = 0;
const volatile u64 mount_lock_addr = 0;
const volatile u64 init_nsproxy_addr = 0;
const volatile u64 init_user_ns_addr = 0;
/* Whether the hook inode_setattr begins with an id map: from 6.9. */
const volatile u64 setattr_idmap = 0;
/* Whether the verifier refuses programs of security hooks that return what is no answer: from 6.12. */
const volatile u64 lsm_returns_checked = 0;
/* The number of this loading of the programs; see struct settings. */
const volatile u64 instance = 0;

/* The pages of one image. Key: page number. */
struct image_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, IMAGE_PAGE);
	__uint(map_flags, BPF_F_INNER_MAP);
};

/* Key: subject slot, 0 is the host. Value: the subject's image, or none. One update swaps the ruleset. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct image_map);
} slots SEC(".maps");

/* Key 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} config SEC(".maps");

/* Key: enum counter. Never full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

/* Key 0: number of the last event on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} sequences SEC(".maps");

/* A thread's label. Without memory for one the label is derived again for every decision (counted). */
TASK_MAP(labels, struct label);

/* The scripts between the first one and the executable, of a thread that was started from a chain of them: hashes of the
 * MIDDLES, then their marks. */
struct chain {
	u64 source[CHAIN];
	u64 pending[CHAIN];
	u64 caller[CHAIN];
	u32 classes[CHAIN]; /* with those of the label */
};

/* Few threads have one. Without memory for it these scripts are no sources (counted). */
TASK_MAP(chains, struct chain);

/* An exec under way. Without memory for one its arguments count as not listed. */
TASK_MAP(starts, struct start);

/* A system call under way that is to be told. Without memory for it it is not told (counted). */
TASK_MAP(calls, struct call);

/* Inodes protected by an exact-path Block, or known as a source. Full: counted, the name alone protects. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mark_key);
	__type(value, struct mark);
} marks SEC(".maps");

/* Flows that were permitted, or of TCP seen. Full: the one that was unused for longest goes, and who began it is
 * then told from its next packet, for TCP from whether somebody listens. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct flow_key);
	__type(value, struct flow_entry);
} flows SEC(".maps");

/* Who used a socket last; an accepted one begins with who listens. Without memory for it events name no process. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct owner);
} owners SEC(".maps");

/* Paths of scripts that tasks were started from, for events. Key: hash. Full: the oldest goes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 512);
	__type(key, u64);
	__type(value, struct script_path);
} scripts SEC(".maps");

/* Key 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct self);
} agent SEC(".maps");

/* What is the agent's: enum place. Written by the agent alone, which says so when it is full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct place_key);
	__type(value, u32);
} places SEC(".maps");

/* enum self_mark, of a process's leader. Without memory for it the next agent is not known as one. */
TASK_MAP(self_marks, u32);

/* Full: the event is lost and counted; the verdict stands. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2097152);
} events SEC(".maps");

/* Key: struct fold_key. Full, or without memory for one more: that event is told by itself. */
struct fold_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FOLD_KEYS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct fold_key));
	__uint(value_size, sizeof(struct fold));
};

/* Key: enum fold_kind. The agent swaps an empty map in and reads the old one: the kernel answers the swap only
 * when no program works on the old one any more, so nothing is counted behind the reader's back. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FOLDS);
	__type(key, u32);
	__array(values, struct fold_map);
} folds SEC(".maps");

/* What a loop changes is kept here and not on the stack: the verifier then sees one loop, not every turn. */
struct cursor {
	u32 state;
	u32 at; /* next byte of the path */
	u32 set;
	u32 broken;
	u32 low;
	u32 high;
	u32 row;
	u32 self; /* of an object: see object_at */
	u32 values[2]; /* of a table's entry */
	u64 words[4]; /* of the hash */
	u64 unknown; /* see FORGET */
};

/* Words of eight bytes that a short name is copied by. */
#define NAME_WORDS 4

/* An object of an operation. Its path stands at the end of the buffer: buffer[start, PATH_END). */
struct object {
	u64 mount; /* struct vfsmount */
	u64 dentry;
	u64 inode; /* 0: does not exist yet */
	u32 start;
	u32 status; /* enum path_status */
	u32 attributes; /* row_bit */
	u32 present;
	u32 tree; /* enum path_tree */
	u32 home; /* the path is the one that the host has for it */
	u32 unsaid; /* no rule names it, to anybody */
	u32 unasked; /* row_bits that nobody has looked for yet */
	u64 marks[OBJECT_MARKS]; /* protected paths that the inode is known by */
	u64 names; /* numbers that it is known by, of PATH_NAMED */
	struct cursor cursor;
	u64 protects; /* hash of the protected path that the name is, 0 when it is none */
	u64 at_dentry; /* where the walk is */
	u64 at_root;
	u64 at_mount;
	u32 renames; /* the locks' sequences while the path was read */
	u32 mounts;
	u64 margin[NAME_WORDS]; /* may be written in front of the longest path */
	char buffer[PATH_ROOM];
};

enum path_status {
	PATH_OK,
	PATH_NONE, /* not yet walked */
	PATH_NAMED, /* no path: a protocol or a capability */
	PATH_INTERNAL, /* on a mount of the kernel's own: pipe, socket, memfd */
	PATH_DETACHED, /* does not end at the top of a mount tree */
	PATH_LONG,
	PATH_RACED,
	PATH_BELOW, /* not yet walked, by the host's name alone */
	PATH_HOMELESS, /* the host has no name for it: on a filesystem that is mounted in other namespaces only */
};

/* Whose mount table gives an object its path. */
enum path_tree {
	TREE_HOST, /* the first mount namespace's */
	TREE_ROOT, /* a namespace's that somebody made who is root of the host */
	TREE_USER, /* one that any user can make, with a user namespace */
};

enum question_state {
	QUESTION_NONE, /* no question */
	QUESTION_UNREAD, /* one that cannot be read */
	QUESTION_NAMED,
};

/* The reading of a DNS message. */
struct question {
	u32 size; /* of all that is sent */
	u32 end; /* of what of it is at hand */
	u32 at;
	u32 left; /* bytes of the label */
	u32 to;
	u32 start;
	u32 state;
};

enum echo {
	ECHO_NONE,
	ECHO_ASKED,
	ECHO_ANSWERED,
};

/* A packet, or the one that a connection would begin with. */
struct packet {
	u64 sk; /* struct sock */
	u64 device; /* of a walk through the addresses of this machine */
	u64 address;
	u32 at; /* of the header that is read next, then of what the headers carry */
	u32 next; /* its protocol */
	u32 unreadable;
	u32 sequence;
	u32 question; /* where in the packet the next one is read */
	u32 denied;
	u8 first; /* byte of the header of the protocol: of ICMP the type */
	u8 begins; /* a TCP connection */
	u8 echo; /* enum echo */
	u8 kernel; /* on a socket of the kernel's own */
	u8 raw;
	u8 local; /* the peer is this machine */
	u8 source[16];
	u8 destination[16];
	u16 source_port; /* network order */
	u16 destination_port;
	char interface[16];
	struct flow_key key;
	struct flow_entry entry;
	struct owner owner;
};

/* What a decision keeps to itself. */
enum quiet {
	QUIET_NOT,
	QUIET_ALWAYS,
	QUIET_PERMITTED, /* the packet is judged again, and then told of */
};

/* Rows that one decision looks at: of every set of the object for every source class; a power of two. */
#define CONDITIONAL 256

struct result {
	u32 priority;
	u32 rule;
	u32 verdict;
	u32 flags;
	u32 before; /* the flags of the objects before this one */
	u32 reserved;
	u32 audits[AUDIT_LISTS];
};

/* The arguments after argv[0], by their hashes. */
struct arguments {
	u32 state; /* enum arguments_state */
	u32 count;
	u32 before; /* of these, what the kernel put before the caller's */
	u32 rule; /* a deciding rule that depended on them */
	u32 listed;
	u32 at;
	u64 address;
	u64 print;
	u64 hashes[ARGUMENTS];
};

enum leniency {
	LENIENT_NOT,
	LENIENT_ALLOW_LIST, /* no allow-list has to name the object */
	LENIENT_NAME, /* and its name does not count: what its inode is known by does */
};

/* What one run of a program works on. BPF-LSM programs may be preempted and have no recursion guard, so
 * a slot is owned by taking its flag, not by being on a CPU. */
struct scratch {
	u32 busy;
	u32 slot; /* its own key */
	u32 class;
	u32 operation;
	u32 hook;
	u32 quiet; /* enum quiet */
	u32 by_caller; /* judge by who started the program, not by the program */
	u32 lenient; /* enum leniency */
	u32 mode;
	u32 flags; /* enum class_flag, of the class */
	u32 has_marks; /* some path is protected by its inode */
	u32 again; /* the image was swapped in the middle of the decision */
	u32 sourced; /* the classes of the sources are known */
	u32 lenient_before; /* while the home name is judged */
	u64 image;
	u64 epoch; /* of the clearances, before the decision */
	u64 hash;
	struct {
		u64 source[SOURCES];
	} label; /* of who is judged, as far as it is needed here */
	u64 chain[CHAIN]; /* the same, of scripts in the middle, when chained is set */
	u32 chained;
	u32 within[MIDDLES]; /* of class syscalls: the classes of the directories of these */
	u32 classes[32]; /* of the SOURCES, from CHAIN_CLASSES on of the chain; room for a mask */
	u32 sets[8]; /* of the object's path in the AUTOMATA or of its OBJECT_NAMES, and of its OBJECT_MARKS */
	u64 names[NAMED_CLASSES]; /* that anything is said of to the caller */
	u64 postures; /* of the caller, four bits for each class */
	struct result result;
	u32 conditional; /* lists of conditions that rows have led to */
	u32 conditional_lists[CONDITIONAL];
	struct {
		u32 priority; /* the greatest of a Block; 1: an allow-list denies */
		u32 fired; /* whose rules fire, by their bits */
		u32 lists[AUDIT_LISTS];
	} dry; /* of policies in dry run, for the object that is decided, with EVENT_DRY */
	struct cursor cursor;
	struct object object[2];
	struct object source;
	struct arguments arguments;
	struct endpoint endpoint;
	struct question question;
	struct packet packet;
	struct fold_key key;
	u32 size; /* of the event's paths in data */
	u32 begin; /* enum fold_kind: a fold is to begin with the event */
	struct fold_head head; /* with the two behind it, a struct fold */
	struct event event;
	char data[EVENT_DATA + PATH_END];
};

/* Key: CPU * SCRATCH_PER_CPU + n. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_PER_CPU);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* As a map's own value, not as an argument's memory: 6.1 takes no other for a key. */
static __always_inline struct scratch *scratch_again(u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

#ifdef OLDER_KERNEL
/* One of the three objects of a slot. */
static __always_inline struct object *object_at(u32 self)
{
	struct scratch *s = scratch_again(self / 4);

	if (!s)
		return 0;
	switch (self & 3) {
	case 0:
		return &s->object[0];
	case 1:
		return &s->object[1];
	default:
		return &s->source;
	}
}

/* Says by which numbers these are found. */
static __always_inline void scratch_number(struct scratch *s)
{
	s->object[0].cursor.self = s->slot * 4;
	s->object[1].cursor.self = s->slot * 4 + 1;
	s->source.cursor.self = s->slot * 4 + 2;
}
#else
static __always_inline void scratch_number(struct scratch *s)
{
}
#endif

__noinline int count(u32 what)
{
	u64 *n = bpf_map_lookup_elem(&counters, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

static __always_inline struct scratch *scratch_take(void)
{
	u32 first = bpf_get_smp_processor_id() * SCRATCH_PER_CPU;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SCRATCH_PER_CPU; i++) {
		u32 key = first + i;
		struct scratch *s = bpf_map_lookup_elem(&scratches, &key);

		if (s && TAKE(&s->busy)) {
			s->slot = key;
			scratch_number(s);
			return s;
		}
	}
	count(COUNT_SCRATCH);
	return 0;
}

static __always_inline void scratch_give(struct scratch *s)
{
	GIVE(&s->busy);
}

#endif
