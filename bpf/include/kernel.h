// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The few kernel types and constants that the programs read. Structures name only the members that are
// used: CO-RE relocates them against the running kernel's BTF, so no vmlinux.h is carried along.
#ifndef MUSTER_KERNEL_H
#define MUSTER_KERNEL_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0

/* Of the kernel's uapi: map types, update flags, map flags. */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_MAP_TYPE_SK_STORAGE 24
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_RB_AVAIL_DATA 0
#define BPF_RB_RING_SIZE 1
#define BPF_F_NO_PREALLOC 1U
#define BPF_F_CLONE (1U << 9)
#define BPF_F_CURRENT_NETNS (-1L)
#define BPF_F_INNER_MAP (1U << 12)
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

#define EPERM 1
#define EACCES 13
#define PF_KTHREAD 0x00200000
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_PATH 0x4000
#define FMODE_NOACCOUNT 0x20000000
#define FMODE_EXEC_FLAG 0x20 /* __FMODE_EXEC in f_flags */
#define PROT_WRITE 0x2
#define PROT_EXEC 0x4
#define MAP_SHARED 0x1 /* of MAP_SHARED_VALIDATE, too */
#define VM_WRITE 0x2
#define VM_EXEC 0x4
#define VM_SHARED 0x8
#define SIGKILL 9
#define MAY_WRITE 0x2
#define SB_NOUSER (1UL << 31) /* of the kernel's own: pipes, sockets, memfds */
#define MNT_INTERNAL 0x4000
#define PROC_SUPER_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFCHR 0020000
#define S_IFDIR 0040000
#define S_IFLNK 0120000
#define S_IFBLK 0060000
#define S_IFREG 0100000

/* Of struct iattr. */
#define ATTR_MODE 0x1
#define ATTR_UID 0x2
#define ATTR_GID 0x4
#define ATTR_SIZE 0x8
#define ATTR_ATIME 0x10
#define ATTR_MTIME 0x20

#define RENAME_EXCHANGE 2
#define PROC_SUPER_MAGIC 0x9fa0
#define AT_FDCWD -100
#define TS_COMPAT 0x2 /* in thread_info's status: the call is one of i386 */

#include "kernel_net.h"

struct seq_file;
struct user_namespace;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seqcount {
	u32 sequence;
};

/* Any structure that begins with NAME_WORDS numbers of eight bytes would do. */
struct rusage {
	long ru_maxrss;
};

struct list_head {
	struct list_head *next;
};

struct hlist_node {
	struct hlist_node *next;
};

/* What is to be changed of an inode. */
struct iattr {
	u32 ia_valid;
};

struct hlist_head {
	struct hlist_node *first;
};

struct file_system_type {
	int fs_flags;
};

struct unicode_map;

struct super_block {
	u32 s_dev;
	struct file_system_type *s_type;
	struct unicode_map *s_encoding;
	unsigned long s_flags;
	unsigned long s_magic;
	struct dentry *s_root;
	struct list_head s_mounts;
	struct user_namespace *s_user_ns;
};

struct super_block___6_18 {
	struct mount *s_mounts;
};

struct qstr {
	union {
		struct {
			u32 hash;
			u32 len;
		};
		u64 hash_len;
	};
	const unsigned char *name;
};

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	s64 counter;
} atomic_long_t;

struct rw_semaphore {
	atomic_long_t count;
};

struct inode {
	u16 i_mode;
	kuid_t i_uid;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_generation;
	u32 i_nlink;
	struct hlist_head i_dentry;
	struct rw_semaphore i_rwsem;
};

/* The dentry's file system has a way of its own with names. */
enum dentry_flags {
	DCACHE_OP_HASH = 0x1,
	DCACHE_OP_COMPARE = 0x2,
	DCACHE_OP_REVALIDATE = 0x4,
	DCACHE_OP_WEAK_REVALIDATE = 0x800,
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	u32 d_flags;
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	union {
		struct hlist_node d_alias;
	} d_u;
};

struct dentry___7 {
	struct hlist_node d_alias;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
	int mnt_flags;
};

struct mnt_namespace {
	u64 seq;
	struct user_namespace *user_ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct ns_common {
	u64 ns_id;
};

struct mnt_namespace___6_18 {
	struct ns_common ns;
};

struct mnt_namespace___7 {
	bool is_anon;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_instance;
	struct mnt_namespace *mnt_ns;
};

struct mount___6_18 {
	struct mount *mnt_next_for_sb;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct cred {
	kuid_t fsuid;
	struct user_namespace *user_ns;
};

struct file {
	u32 f_mode;
	u32 f_flags;
	struct path f_path;
	struct inode *f_inode;
	const struct cred *f_cred;
};

struct bpf_map {
	u32 id;
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	struct tty_struct *tty;
};

struct mm_struct {
	struct file *exe_file;
};

struct pid {
	struct hlist_head tasks[4];
};

struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

struct thread_info {
	u32 status; /* of x86 */
};

struct fs_struct {
	struct path root, pwd;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct thread_info thread_info;
	char comm[16];
	u32 flags;
	u32 in_execve : 1;
	s32 pid;
	s32 tgid;
	u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	const struct cred *real_cred;
	const struct cred *cred;
	struct signal_struct *signal;
	struct hlist_node pid_links[4];
	struct fs_struct *fs;
	struct files_struct *files;
	void *stack;
};

struct in6_addr {
	u8 bytes[16];
};

struct net {
	struct list_head dev_base_head;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in_ifaddr {
	struct in_ifaddr *ifa_next;
	u32 ifa_local;
};

struct in_device {
	struct in_ifaddr *ifa_list;
};

struct inet6_ifaddr {
	struct in6_addr addr;
	struct list_head if_list;
};

struct inet6_dev {
	struct list_head addr_list;
};

struct net_device {
	char name[16];
	struct list_head dev_list;
	struct in_device *ip_ptr;
	struct inet6_dev *ip6_ptr;
};

struct sock_common {
	u16 skc_family;
	u8 skc_state;
	u16 skc_num;
	possible_net_t skc_net;
	u16 skc_dport; /* network order */
	u32 skc_daddr;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_type;
	u16 sk_protocol;
	u8 sk_kern_sock : 1;
};

struct udp_sock {
	int pending;
};

struct socket {
	struct sock *sk;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
};

enum iter_type {
	ITER_IOVEC = 100, /* the kernel's own numbers are read from its BTF */
	ITER_UBUF,
};

struct iovec {
	void *iov_base;
	u64 iov_len;
};

struct iov_iter {
	u8 iter_type;
	u64 iov_offset;
	u64 count;
	u64 nr_segs;
	const struct iovec *__iov;
	void *ubuf;
};

struct iov_iter___5_10 {
	u32 type;
};

struct iov_iter___5_20 {
	const struct iovec *iov;
};

struct msghdr {
	void *msg_name;
	unsigned int msg_flags;
	struct iov_iter msg_iter;
};

struct sockaddr {
	u16 sa_family;
};

struct linux_binprm {
	unsigned long p; /* the lowest address of the new stack: argv[0] */
	struct file *file;
	int argc;
	const char *interp; /* the name that an interpreter of the file is given */
	char buf[256];
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

/* A file that backs one of a stacked filesystem, from 6.5. */
struct backing_file {
	struct file file;
	struct path user_path;
};

struct pt_regs {
	unsigned long r10, r8, bp, bx, cx, dx, si, di;
	unsigned long orig_ax;
};

/* A path that a system call was given. */
struct filename {
	const char *name;
	const char *uptr; /* before 7 */
};

struct renamedata {
	struct dentry *old_dentry;
	struct dentry *new_dentry;
	unsigned int flags;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

#pragma clang attribute pop

#endif
