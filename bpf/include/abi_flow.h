// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The part of abi.h that is about flows, and who uses a socket.
#ifndef MUSTER_ABI_FLOW_H
#define MUSTER_ABI_FLOW_H

/* One flow, as the subject's end of it is named. */
struct flow_key {
	u64 net;
	u8 peer[16];
	u16 peer_port;
	u16 port;
	u8 family;
	u8 protocol;
	u8 reserved[2];
};

enum flow_said {
	FLOW_UNDECIDED,
	FLOW_PERMITTED,
	FLOW_DENIED,
	FLOW_WATCHED, /* permitted, and to be told of */
};

/* What is known of a flow: who began it, and what one ruleset says of it on one interface. */
struct flow_entry {
	u64 seen; /* CLOCK_BOOTTIME */
	u64 image;
	u32 class; /* CLASS_INGRESS or CLASS_EGRESS */
	u32 said; /* enum flow_said */
	u32 interface;
	u32 begun; /* sequence number that a TCP connection began with */
	u32 asked; /* the segment whose question was decided last, and the ruleset */
	u32 answered; /* enum flow_said */
};

enum owner_flag {
	OWNER_AGENT = 1,
	OWNER_TERMINAL = 2,
	OWNER_CHAINED = 4,
};

/* Who used a socket last. */
struct owner {
	u64 source[SOURCES];
	u64 chain[CHAIN]; /* with OWNER_CHAINED */
	u32 pid;
	u32 ppid;
	u32 uid;
	u32 flags;
	char comm[16];
};

#endif
