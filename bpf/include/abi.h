// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What both sides of the kernel boundary know. bpf2go turns these types and enumerations into Go; nothing
// here is typed a second time. Any change of a type here changes the layout hash, and with it the pin path.
#ifndef MUSTER_ABI_H
#define MUSTER_ABI_H

enum limit {
	PATH_END = 4096, /* PATH_MAX: a path and its NUL */
	PATH_ROOM = 4096 + 256, /* room for one component beyond */
	IMAGE_PAGE = 65536,
	IMAGE_UNIT = 16,
	UNITS_PER_PAGE = 4096,
	ROW_ENTRIES = 8,
	TAIL_BYTES = 24,
	SPARSE_EDGES = 4,
	TABLE_PROBES = 8, /* longest probe in the source and mark tables */
	AUTOMATA = 4, /* of one class; more states than one can hold are shared among them */
	MARK_CLASSES = 2, /* process and file: marks are for files */
	NAMED_CLASSES = 2, /* network and capabilities: their objects are known by numbers */
	OBJECT_NAMES = 4, /* numbers that one object can be known by */
	OBJECT_MARKS = 4, /* protected paths that one inode can be known by */
	SOURCE_MARKS = 2,
	SOURCES = 6, /* executable, script, and the marks of each */
	MIDDLES = 4, /* scripts between the first one and the executable: the kernel follows no longer chain */
	CHAIN = 12, /* these, then the marks of each */
	CHAIN_CLASSES = 8, /* where their classes begin behind those of the SOURCES */
	SEARCH_STEPS = 24,
	SCRATCH_PER_CPU = 4,
	CLEARANCES = 16384, /* a power of two */
	AUDIT_LISTS = 8, /* of one event; more are counted */
	EVENT_PATHS = 5,
	ARGUMENTS = 512, /* of one program, after argv[0]; of more some count as not listed */
	SCRIPT_ARGUMENTS = 4, /* that the kernel puts before a script's own */
	PROGRAMS = 128,
	CALLS = 2048, /* numbers of system calls: those of 64 bits and of x32, then those of i386 */
	CALLS_I386 = 1024, /* the first of i386 */
	CALL_DATA = 7168, /* of paths that a call under way keeps */
	USED_DESCRIPTORS = 8, /* that a thread need not ask about again */
	EVENT_DATA = 16384,
	FOLD_DATA = 512, /* of paths that a fold keeps */
	FOLD_KEYS = 2048,
	FOLD_BURST = 16, /* events of one key that are told each by itself, in one window */
};

enum magic {
	IMAGE_MAGIC = 0x5254534d, /* MSTR */
	IMAGE_LAYOUT = 4,
};

/* The classes that are enforced, as indexes. */
enum class {
	CLASS_PROCESS = 0,
	CLASS_FILE = 1,
	CLASS_DNS = 2, /* the path is the queried name from its end: /example/www */
	CLASS_NETWORK = 3, /* the first of the NAMED_CLASSES */
	CLASS_CAPABILITIES = 4,
	CLASS_SYSCALLS = 5, /* reports only; what a rule speaks of is found by struct image_call */
	CLASS_PRESET = 6, /* known by enum preset */
	CLASS_INGRESS = 7, /* flows; the path is one of enforce.Flow: /4maaaacah/u/aaaj/=eth0 */
	CLASS_EGRESS = 8,
	CLASSES = 9,
};

/* The presets: bits of their object's names. */
enum preset {
	PRESET_FILELESS,
	PRESET_ANONYMOUS,
	PRESET_ENVIRON,
	PRESET_PROC,
};

/* What a socket counts as: bits of its object's names. */
enum protocol {
	PROTOCOL_TCP,
	PROTOCOL_UDP,
	PROTOCOL_ICMP,
	PROTOCOL_ICMPV6,
	PROTOCOL_SCTP,
	PROTOCOL_DCCP,
	PROTOCOL_RAW,
	PROTOCOL_PACKET,
	PROTOCOL_STREAM,
	PROTOCOL_DGRAM,
	PROTOCOL_SEQPACKET,
	PROTOCOL_RDM,
	PROTOCOL_ALL,
	PROTOCOL_OTHER, /* what no rule can name: only an allow-list speaks of it */
};

enum state_kind {
	STATE_LEAF = 1, /* no way on */
	STATE_TAIL = 2, /* up to TAIL_BYTES literal bytes */
	STATE_SPARSE = 3, /* up to SPARSE_EDGES single bytes */
	STATE_DENSE = 4, /* a table for the bytes lo..hi */
};

enum row_bit {
	ROW_OWNER = 1,
	ROW_READ = 2,
	ROW_MAPPED = 2, /* of class process: the file is mapped executable, not run */
	ROW_TERMINAL = 4,
};

enum verdict {
	VERDICT_PERMIT = 0,
	VERDICT_DENY = 1,
};

enum posture {
	POSTURE_NONE = 0,
	POSTURE_AUDIT = 1,
	POSTURE_BLOCK = 2, /* decides where both are set */
	POSTURE_DRY = 4, /* a policy in dry run has an allow-list that would deny */
};

enum mode {
	MODE_ENFORCE = 1,
	MODE_AUDIT = 2,
};

enum class_flag {
	CLASS_HAS_RULES = 1,
	/* The class has a Block or an Allow rule: what cannot be decided is denied. */
	CLASS_CLOSED = 2,
	/* No rules, but names that are protected in another class: they are watched where names change. */
	CLASS_WATCHES = 4,
	/* A rule depends on the arguments. */
	CLASS_ARGUMENTS = 8,
	/* A Block counts for every executable mapping of the file. */
	CLASS_MAPPED = 16,
	/* Of class syscalls: a call that never returns is watched. */
	CLASS_STARTS = 32,
	/* Of class syscalls: a call that takes a path is watched. */
	CLASS_PATHS = 64,
	/* Of class preset: some rule is about what is run, what memory becomes executable, what is opened. */
	CLASS_PRESET_EXEC = 128,
	CLASS_PRESET_MAP = 256,
	CLASS_PRESET_OPEN = 512,
	/* A rule names an interface. */
	CLASS_INTERFACES = 1024,
	/* What no rule speaks of is told as well. */
	CLASS_VISIBLE = 2048,
	/* Some source has an allow-list, be it of a policy in dry run. */
	CLASS_POSTURE = 4096,
	/* A rule only reports: of an operation that is denied, too. */
	CLASS_AUDITS = 16384,
	/* A policy in dry run has an Allow or a Block. */
	CLASS_DRY = 8192,
};

/* A reference is the number of a 16-byte unit from the image's start; 0 is none. */
struct image_class {
	u32 start[AUTOMATA]; /* states; 0 from the first that is not needed */
	u32 flags;
	u32 names; /* u32 set[name_count], by number, of a class whose objects are known by numbers */
	u32 name_count;
	u32 dry; /* audit list of who would deny what has no buildable path */
};

struct image_header {
	u32 magic;
	u32 layout;
	u64 id; /* of the contents: the first bytes of their sha256 with id zero */
	u8 digest[32]; /* of the ruleset */
	u32 mode;
	u32 units;
	struct image_class classes[CLASSES];
	u32 sources; /* struct image_source[source_mask + 1], open addressing */
	u32 source_mask;
	u32 marks; /* struct image_mark[mark_mask + 1] */
	u32 mark_mask;
	u32 postures; /* struct image_posture, by source class; 0 without any allow-list */
	u32 source_classes;
	u32 concerns; /* struct image_concern, by source class; 0 without rules of the NAMED_CLASSES */
	u32 calls; /* struct image_call[CALLS]; 0 without rules of class syscalls */
	u32 directories; /* the automaton of the source directories: it accepts with a source class */
	u32 spare;
};

enum call_flag {
	CALL_NO_RETURN = 1, /* reported when it begins */
	CALL_BY_NAME = 2, /* makes, moves or removes a name: the path_* hooks tell it, not a lookup */
	CALL_EXEC = 4,
	CALL_FORK = 8, /* returns in the child, too */
};

/* A system call, by its number. */
struct image_call {
	u32 group; /* struct image_group; 0: no rule names it */
	u8 path; /* number of the argument that is its first path, from 1; 0: none */
	u8 base; /* of the descriptor that the path is relative to; 0: to the working directory */
	u8 flags;
	u8 reserved;
};

/* System calls that the same rules name: {image_group, image_any}. */
struct image_group {
	u32 start[AUTOMATA]; /* over the path */
};

struct image_any {
	u32 set; /* of the rules that name no path */
	u32 reserved[3];
};

struct image_source {
	u64 hash;
	u32 class;
	u32 marked; /* the class for a source known by its inode only, 0 when it has no rules */
};

struct image_mark {
	u64 hash;
	u32 sets[MARK_CLASSES];
};

struct image_posture {
	u64 classes; /* enum posture, four bits for each of the CLASSES */
	u32 dry; /* struct image_dry[CLASSES]; 0: none has POSTURE_DRY */
	u32 reserved;
};

/* The allow-lists of policies in dry run. */
struct image_dry {
	u32 policies; /* a bit each; the last one for all that have none of their own */
	u32 list; /* audit list */
};

/* The names that a rule speaks of to a source; all of them under an allow-list. */
struct image_concern {
	u64 names[NAMED_CLASSES];
};

/* One state of the automaton. LEAF: one unit. TAIL: {state, u32 slash, u32 0, text}. SPARSE: {state, u32
 * target[4]}; word holds the keys. DENSE: {state, u32 target[hi - lo + 1]}. other is the target of every
 * byte that is not named; for TAIL word is the target behind the text, slash that of a '/' out of turn. */
struct image_state {
	u8 kind;
	u8 count;
	u8 lo;
	u8 hi;
	u32 accept; /* set */
	u32 other;
	u32 word;
};

/* Rules that match at a state: {set, image_exception[count]}, exceptions sorted by class. */
struct image_set {
	u32 count;
	u32 row; /* for every source class without an exception */
	u64 mark; /* hash of the path, when it is protected by inode */
};

struct image_exception {
	u32 class;
	u32 row;
};

/* One entry of a row; the row's index is made of row_bit. */
struct image_entry {
	u32 priority; /* 0: neither Allow nor Block fires */
	u32 rule; /* number + 1 */
	u32 audits; /* number of an audit list, 0 for none */
	u32 conditions; /* {image_conditions, image_condition[count]}, or 0 */
};

enum priority_bit {
	PRIORITY_DENY = 1,
	PRIORITY_DRY = 1 << 30, /* takes no part in the verdict; the entry's rule is its policy's bit */
};

/* And what the rules of policies in dry run that fire for any arguments come to. */
struct image_conditions {
	u32 count;
	u32 dry; /* audit list of these rules; 0: there is none */
	u32 priority; /* the greatest of a Block among them */
	u32 policies; /* theirs, by their bits in struct image_dry */
};

/* An entry that takes part for some arguments only: a rule that permits when every one is listed, any other
 * when one is not. */
struct image_condition {
	u32 priority;
	u32 rule;
	u32 audits;
	u32 args; /* {image_args, image_source[mask + 1]}: the hashes of what is listed */
};

struct image_args {
	u32 mask;
	u32 reserved[3];
};

enum operation {
	OP_EXEC = 1,
	OP_OPEN,
	OP_LIST,
	OP_CREATE,
	OP_TRUNCATE,
	OP_UNLINK,
	OP_RENAME,
	OP_LINK,
	OP_SYMLINK,
	OP_MKDIR,
	OP_RMDIR,
	OP_MKNOD,
	OP_CHMOD,
	OP_CHOWN,
	OP_SOCKET,
	OP_BIND,
	OP_LISTEN,
	OP_CONNECT,
	OP_ACCEPT,
	OP_SEND,
	OP_QUERY,
	OP_MAP,
	OP_CAPABLE,
	OP_SYSCALL,
	OP_READ,
	OP_WRITE,
	OP_RECEIVE,
	OP_SETXATTR,
	OP_UTIMES,
	OP_IOCTL,
};

/* Written by the agent. The keys never change after the first program is attached; what stands before build never moves,
 * because an agent of another layout reads it (inherit.go). */
struct settings {
	u64 hash_key[2];
	u64 instance; /* of the programs that emit events: during an upgrade two sets decide, one speaks */
	u64 agent_start; /* start_boottime of the agent's leader, in ticks */
	u32 agent_tgid;
	u32 layout; /* what the entries of the lasting maps look like */
	u64 build; /* of the object that the attached programs came from */
	u64 tags[PROGRAMS]; /* the kernel's tags of these programs, so that a new agent need not load them to know */
};

/* What clearances depend on beside their own words; see include/clear.h. */
struct clearing_state {
	u64 epoch;
	u64 off; /* not 0: none is given, and none holds */
};

struct mark_key {
	u64 inode;
	u32 device;
	u32 generation;
};

struct mark {
	u64 paths[OBJECT_MARKS];
};

enum label_flag {
	LABEL_KNOWN = 1,
	/* Started without an ELF interpreter, and no other file mapped executable since: the next one that is
	 * counts as run, by who started this one. */
	LABEL_FRESH = 2,
	/* The thread was started from a script whose interpreter is a script, and so was who started it. */
	LABEL_CHAINED = 4,
	LABEL_CALLER_CHAINED = 8,
};

/* The label of one thread: who it is, apart from any ruleset, and beside it the answer of one ruleset. */
struct label {
	u64 source[SOURCES]; /* executable, script, marks of the executable, marks of the script */
	u64 image; /* the image that classes belongs to */
	u32 classes[SOURCES];
	u64 names[NAMED_CLASSES]; /* that the image says anything of to these sources */
	u64 postures; /* four bits for each class: what their allow-lists do with what no rule matches */
	u32 flags;
	u32 pending_count;
	u64 pending[SOURCES];
	u64 move_dentry[2]; /* between path_rename or path_link and its success */
	u64 move_mark[2];
	u64 caller[SOURCES]; /* with LABEL_FRESH: the source before the exec */
	u64 write_mount; /* what the thread is about to change something on: struct vfsmount */
	u32 started; /* the published image at the last exec, by the number of its map */
	/* Of a process's leader, for all its threads: open files that were judged, under which image, and for what
	 * (FMODE_READ, FMODE_WRITE). */
	u32 used_next;
	u64 used_file[USED_DESCRIPTORS];
	u64 used_dentry[USED_DESCRIPTORS];
	u32 used_image[USED_DESCRIPTORS];
	u32 used_access[USED_DESCRIPTORS];
};

/* What is known of the arguments of an exec under way, in a ruleset that has allowedArgs. */
struct start {
	u64 image;
	u64 print; /* of the caller's arguments, as they were judged */
	u64 before[SCRIPT_ARGUMENTS]; /* hashes of what the kernel puts before them */
	u32 passes;
	u32 count; /* the caller's arguments after argv[0] */
	u32 count_before; /* more than SCRIPT_ARGUMENTS: unknown */
	u32 rule; /* number + 1 of one that depended on them; 0: none did */
};

struct script_path {
	u32 length;
	char path[508];
};

enum arguments_state {
	ARGUMENTS_UNKNOWN = 0, /* they count as not listed */
	ARGUMENTS_UNREAD = 1,
	ARGUMENTS_WANTED = 2, /* some rule depends on them */
	ARGUMENTS_KNOWN = 3,
};

#include "abi_event.h"
#include "abi_flow.h"
#include "abi_probe.h"
#include "abi_self.h"

#endif
