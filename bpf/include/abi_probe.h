// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The part of abi.h that the agent asks the kernel side with: the test entry, and which inode a descriptor is.
#ifndef MUSTER_ABI_PROBE_H
#define MUSTER_ABI_PROBE_H

/* Input and output of the test entry. */
struct probe {
	u64 path; /* user pointer */
	u32 length; /* 0: no name, or with EVENT_UNBUILDABLE in flags a path that could not be built */
	u32 class;
	u64 sources[SOURCES];
	u64 chain[CHAIN];
	u64 marks[OBJECT_MARKS];
	u64 names; /* of an object that has no path */
	u32 attributes; /* row_bit */
	u32 verdict;
	u32 rule;
	u32 flags;
	u32 audits[AUDIT_LISTS];
	u32 call; /* of class syscalls */
	u32 source_lengths[2];
	u8 second; /* verdict, rule, flags and audits are what the operation's object before it has come to */
	u8 unfinished; /* another object follows */
	u8 reserved[2];
	u64 source_paths[2]; /* user pointers to the executable's and the script's path, for their directories */
	u32 arguments; /* enum arguments_state */
	u32 argument_count;
	u64 argument_hashes[8];
};

struct found_inode {
	u32 fd;
	u32 device;
	u64 inode;
	u32 generation;
	u32 place_generation; /* as in struct place_key */
	u64 mounts; /* the mount namespace that it was opened in, by a number that is not given again */
	u64 under[2]; /* the root of a mount: inode of what that is mounted on, and below what else is mounted there */
	u32 under_device[2];
	u32 under_generation[2];
};

#endif
