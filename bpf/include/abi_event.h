// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The part of abi.h that is about events: what the ring, the folds and the counters carry to the agent.
#ifndef MUSTER_ABI_EVENT_H
#define MUSTER_ABI_EVENT_H

enum hook {
	HOOK_BPRM_CHECK = 1,
	HOOK_FILE_OPEN,
	HOOK_PATH_MKNOD,
	HOOK_PATH_TRUNCATE,
	HOOK_FILE_TRUNCATE,
	HOOK_PATH_UNLINK,
	HOOK_PATH_RENAME,
	HOOK_PATH_LINK,
	HOOK_PATH_SYMLINK,
	HOOK_PATH_MKDIR,
	HOOK_PATH_RMDIR,
	HOOK_PATH_CHMOD,
	HOOK_PATH_CHOWN,
	HOOK_SOCKET_CREATE,
	HOOK_SOCKET_BIND,
	HOOK_SOCKET_LISTEN,
	HOOK_SOCKET_CONNECT,
	HOOK_SOCKET_ACCEPT,
	HOOK_SOCKET_SENDMSG,
	HOOK_PACKET,
	HOOK_MMAP_FILE,
	HOOK_FILE_MPROTECT,
	HOOK_BPRM_COMMITTING,
	HOOK_CAPABLE,
	HOOK_SYSCALL,
	HOOK_FILE_PERMISSION,
	HOOK_FILE_RECEIVE,
	HOOK_INODE_SETXATTR,
	HOOK_INODE_REMOVEXATTR,
	HOOK_INODE_SET_ACL,
	HOOK_INODE_REMOVE_ACL,
	HOOK_PACKET_IN,
	HOOK_INODE_SETATTR,
	HOOK_FILE_IOCTL,
	HOOK_INODE_CREATE,
	HOOK_INODE_MKNOD,
	HOOK_INODE_MKDIR,
	HOOK_INODE_RMDIR,
	HOOK_INODE_SYMLINK,
	HOOK_INODE_UNLINK,
	HOOK_INODE_LINK,
	HOOK_INODE_RENAME,
};

/* Every way out that does not decide by rules, and every loss, is counted here. */
enum counter {
	COUNT_SCRATCH, /* no free scratch slot: decided by the class's fail direction */
	COUNT_IMAGE, /* the image does not read as one: the same */
	COUNT_UNBUILDABLE, /* a path could not be built: the same */
	COUNT_RACED, /* a path changed under every attempt to read it: the same */
	COUNT_NO_SEQUENCE, /* the kernel hides rename_lock or mount_lock: paths are read once */
	COUNT_LAZY_LABEL, /* a task was labelled at its first decision */
	COUNT_LABEL_MEMORY, /* no memory for a label: derived again at the next decision */
	COUNT_SOURCE_PATH, /* an executable's path could not be built: it has no source class */
	COUNT_MARK_FULL, /* no room for a mark: the name alone protects the file */
	COUNT_MARK_OVERFLOW, /* an inode is known by more protected paths than fit */
	COUNT_RING_FULL, /* an event was lost */
	COUNT_EVENTS, /* events offered: told, folded and lost */
	COUNT_AUDITS, /* an event had more audit lists than fit */
	COUNT_ARGUMENTS, /* arguments could not be read, or were too many: they count as not listed */
	COUNT_ARGUMENTS_CHANGED, /* a process was killed: its arguments changed after they were judged */
	COUNT_AGENT, /* the agent's own operation was let through */
	COUNT_FOLDED, /* an event was counted in a fold instead of told by itself */
	COUNT_CALL_MEMORY, /* no memory to keep what a system call is made on: it is not told */
	COUNT_NAMES_MOVED, /* a directory or a symlink got a name: names that policies know may lead elsewhere now */
	COUNT_SELF, /* self-protection denied something */
	COUNTERS,
};

enum event_limit {
	EVENT_DIRECTORY = 4, /* the last of the paths: where the caller was */
	EVENT_ARGUMENTS = 512, /* bytes of a program's arguments */
};

enum event_flag {
	EVENT_POSTURE = 1,
	EVENT_WOULD_DENY = 2,
	EVENT_UNBUILDABLE = 4,
	EVENT_FALLBACK = 8, /* decided by the fail direction */
	EVENT_VISIBLE = 16, /* told because the class is visible, by no rule */
	EVENT_CUT = 32, /* there are more arguments than the event has, or they could not be read */
	EVENT_DRY = 64, /* a policy in dry run may have denied it: the lists tell */
};

/* What stands in the audit lists of an event beside numbers of lists: for each object that may have been denied in a dry
 * run the lists of who may have, and behind them what was decided about the object. */
enum list_bit {
	LIST_DRY = 1 << 30, /* the number of a list of rules, ~rule for one that makes an allow-list */
	LIST_DECIDED = 1 << 29, /* the number + 1 of the rule that decided, 0 for none */
	LIST_UNBUILDABLE = 1 << 28, /* with LIST_DECIDED: its path could not be built */
};

/* A socket and the other end of what it does; family 0: none. */
struct endpoint {
	u16 family;
	u16 type;
	u16 protocol;
	u16 port;
	u8 address[16];
};

struct event {
	u64 time; /* CLOCK_BOOTTIME */
	u64 image;
	u64 sequence; /* per CPU */
	u64 script; /* hash of the script's path */
	u64 names; /* of an object that has no path; of class syscalls the number, and CALL_X32 */
	struct endpoint endpoint; /* of the classes network and dns */
	u32 cpu;
	u32 pid;
	u32 ppid;
	u32 uid;
	u32 rule; /* number + 1 */
	u32 audits[AUDIT_LISTS]; /* and enum list_bit, with EVENT_DRY */
	u16 lengths
		[EVENT_PATHS]; /* resource, second name, source, parent, directory; in this order behind the header */
	u16 arguments; /* then those of a program that is started, each with its NUL, without the first */
	u8 class;
	u8 operation;
	u8 hook;
	u8 verdict;
	u8 mode;
	u8 flags;
	u16 error; /* of class syscalls: what the call failed with */
	char comm[16];
	char tty[24];
};

/* Events that agree in all of this are the same to an operator but for the process and the moment. */
struct fold_key {
	u64 image;
	u64 objects[2]; /* the second may be a peer; 0 in FOLDS_RULE */
	u64 source;
	u64 script;
	u32 audits[AUDIT_LISTS];
	u32 rule;
	u32 uid;
	u8 class;
	u8 operation;
	u8 hook;
	u8 verdict;
	u8 mode;
	u8 flags;
	u16 error;
};

struct fold_head {
	u64 told; /* events of this key in this window; beyond FOLD_BURST they are folded */
	u64 count; /* folded */
	u64 first; /* CLOCK_BOOTTIME of the first and the last that was folded */
	u64 last;
	u32 pid; /* of the last */
	u32 ppid;
};

enum call_bit {
	CALL_X32 = 0x40000000,
};

/* A system call that rules report and that has not returned yet. */
struct call {
	u32 size; /* of the paths; what does not fit is left out */
	u32 reserved;
	struct fold_key key;
	struct event event;
	u8 data[CALL_DATA];
};

/* What was counted, and the event that it began with. */
struct fold {
	struct fold_head head;
	struct event event;
	u8 data[FOLD_DATA]; /* its paths, as far as there is room */
};

enum fold_kind {
	FOLDS_OBJECT, /* the same rule, source and object */
	FOLDS_RULE, /* the same rule and source, whatever the object: under pressure only */
	FOLDS,
};

#endif
