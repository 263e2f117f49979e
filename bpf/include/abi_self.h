// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The part of abi.h that is about self-protection: what the agent tells the kernel of itself.
#ifndef MUSTER_ABI_SELF_H
#define MUSTER_ABI_SELF_H

/* What an inode is to the agent: bits. */
enum place {
	PLACE_TREE = 1, /* it and all below it are the agent's */
	PLACE_RUN = 2, /* the same, and whoever starts the agent makes and removes it */
	PLACE_UNITS = 4, /* below it the agent's unit has files */
	PLACE_GROUPS = 8, /* below it the agent's unit has its control group */
	PLACE_ABOVE = 16, /* a directory on the way to one of the above */
	PLACE_MOUNT = 32, /* on it lies a mount on the way */
	PLACE_EVERY = 64, /* with PLACE_UNITS: what systemd adds to every service is the agent's, too */
	PLACE_ABSENT = 128, /* nobody may make the directories of units that are not there below it */
};

struct place_key {
	u64 inode; /* 0: whether any place is on this device */
	u32 device;
	u32 generation; /* where subvolumes share device and inodes: of btrfs; else 0, for it can be set */
};

enum self_limit {
	SELF_UNIT_WORDS = 8,
};

/* Who may be the agent, written by the agent before the programs of self-protection are attached. */
struct self {
	u64 unit[SELF_UNIT_WORDS]; /* name of its unit, with zeros behind it; empty: it has none */
	u64 unit_mask[SELF_UNIT_WORDS]; /* of names that begin with it */
	u64 unit_exact[SELF_UNIT_WORDS]; /* of its own, the zero behind it as well */
	u64 group_parent; /* id of the control group that the unit's is in */
	u64 launcher_group; /* … of the launcher's own */
	u64 own_mounts; /* the agent's mount namespace, as found_inode.mounts */
	u64 program; /* inode of its executable */
	u64 starter; /* inode of what its launcher runs before it (systemd-executor), 0: nothing */
	u64 launcher_start; /* in ticks, as settings.agent_start */
	u32 program_device;
	u32 starter_device;
	u32 launcher; /* process that starts it: its parent */
	u32 program_generation;
	u32 starter_generation;
	u32 off; /* nothing is denied any more: programs that are let go of run for seconds yet */
};

/* What a process is to the agent. */
enum self_mark {
	SELF_LAUNCHED = 1, /* the launcher made it, and it has run nothing of its own yet */
	SELF_AGENT = 2, /* the launcher started it from the agent's executable, in the agent's unit */
};

#endif
