// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The part of kernel.h that is the network's uapi: it is the same on every kernel.
#ifndef MUSTER_KERNEL_NET_H
#define MUSTER_KERNEL_NET_H

/* Of the kernel's uapi: sockets. */
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_SMC 43
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_RDM 4
#define SOCK_SEQPACKET 5
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_DCCP 33
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136
#define IPPROTO_SMC 256
#define IPPROTO_MPTCP 262

#define IPPROTO_IGMP 2
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define IPPROTO_MOBILITY 135
#define TCP_SYN_SENT 2
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12
#define LOOPBACK_IFINDEX 1
#define MSG_MORE 0x8000

/* Of the kernel's uapi: what a program of a control group is given. The verifier knows it by its offsets. */
struct bpf_sock;

struct __sk_buff {
	u32 len;
	u32 before_protocol[3];
	u32 protocol; /* network order */
	u32 before_ifindex[5];
	u32 ifindex;
	u32 before_gso_segs[30];
	u32 gso_segs;
	struct bpf_sock *sk;
	u32 gso_size;
};

struct bpf_sock {
	u32 before_state[18];
	u32 state;
};

struct bpf_sock_tuple {
	union {
		struct {
			u32 saddr;
			u32 daddr;
			u16 sport;
			u16 dport;
		} ipv4;
		struct {
			u32 saddr[4];
			u32 daddr[4];
			u16 sport;
			u16 dport;
		} ipv6;
	};
};

#endif
