// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"
#include "caps.h"

#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/io.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

// granted: the call checks the capability first and then fails over what it was given, on purpose.
static int granted(const char *what, long result)
{
	return result < 0 && errno != EPERM && errno != EACCES && errno != ENOSYS
		   ? PROBE_OK
		   : judge(what, result);
}

static int cap_linux_immutable(unsigned cap)
{
	int flags = 0, fd = memory_file();

	if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) {
		char path[64]; // files in memory have no flags before 6.0

		snprintf(path, sizeof(path), "/opt/t/dir/flags-%d", getpid());
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || only(cap) < 0)
		return setup_failed("linux_immutable");
	flags |= FS_APPEND_FL;
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
		return judge("FS_IOC_SETFLAGS", -1);
	flags &= ~FS_APPEND_FL;
	return judge("FS_IOC_SETFLAGS", ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

static int cap_net_bind_service(unsigned cap)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(899)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || only(cap) < 0)
		return setup_failed("net_bind_service");
	return judge("bind", bind(fd, (struct sockaddr *)&any, sizeof(any)));
}

static int cap_net_broadcast(unsigned cap)
{
	int one = 1, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || only(cap) < 0)
		return setup_failed("net_broadcast");
	return judge("setsockopt",
		     setsockopt(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &one, sizeof(one)));
}

static int cap_net_admin(unsigned cap)
{
	int size = 65536, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || only(cap) < 0)
		return setup_failed("net_admin");
	return judge("setsockopt", setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)));
}

// cap_net_raw binds a socket to a device twice: the second time needs the capability, and a local
// socket is enough, so that no rule about internet or packet sockets has a part in it.
static int cap_net_raw(unsigned cap)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0 || only(cap) < 0)
		return setup_failed("net_raw");
	return judge("setsockopt", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
}

static int cap_ipc_owner(unsigned cap)
{
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT);
	void *at;
	int code;

	if (id < 0 || only(cap) < 0)
		return setup_failed("ipc_owner");
	at = shmat(id, NULL, SHM_RDONLY);
	code = judge("shmat", at == (void *)-1 ? -1 : 0);
	shmctl(id, IPC_RMID, NULL);
	return code;
}

static int cap_sys_module(unsigned cap)
{
	return only(cap) < 0
		   ? setup_failed("sys_module")
		   : granted("delete_module",
			     syscall(SYS_delete_module, "muster-no-such-module", O_NONBLOCK));
}

static int cap_sys_rawio(unsigned cap)
{
#ifdef __x86_64__
	return only(cap) < 0 ? setup_failed("sys_rawio") : judge("ioperm", ioperm(0x80, 1, 1));
#else
	(void)cap;
	return PROBE_USAGE;
#endif
}

static int cap_sys_chroot(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("sys_chroot") : judge("chroot", chroot("/"));
}

static int cap_sys_pacct(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("sys_pacct") : judge("acct", syscall(SYS_acct, NULL));
}

static int cap_sys_admin(unsigned cap)
{
	struct utsname name;

	if (uname(&name) < 0 || only(cap) < 0)
		return setup_failed("sys_admin");
	return judge("sethostname", sethostname(name.nodename, strlen(name.nodename)));
}

// cap_sys_boot: wrong magic numbers, which are looked at after the capability.
static int cap_sys_boot(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("sys_boot")
			     : granted("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
}

static int cap_sys_time(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("sys_time")
			     : judge("settimeofday", syscall(SYS_settimeofday, NULL, NULL));
}

static int cap_sys_tty_config(unsigned cap)
{
	signal(SIGHUP, SIG_IGN);
	return only(cap) < 0 ? setup_failed("sys_tty_config")
			     : judge("vhangup", syscall(SYS_vhangup));
}

// audit_ask sends one message to the audit system and returns its acknowledgement as a system call
// would.
static long audit_ask(int type)
{
	struct {
		struct nlmsghdr head;
		char body[16];
	} ask = {.head = {.nlmsg_len = sizeof(ask),
			  .nlmsg_type = type,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[8192];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);

	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0 ||
	    recv(fd, &answer, sizeof(answer), 0) < 0)
		return -1;
	if (answer.head.nlmsg_type != NLMSG_ERROR)
		return 0;
	errno = -answer.error.error;
	return errno ? -1 : 0;
}

static int cap_audit_write(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("audit_write")
			     : judge("AUDIT_USER", audit_ask(AUDIT_USER));
}

static int cap_audit_control(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("audit_control")
			     : judge("AUDIT_GET", audit_ask(AUDIT_GET));
}

static int cap_audit_read(unsigned cap)
{
	struct sockaddr_nl log = {.nl_family = AF_NETLINK,
				  .nl_groups = 1 << (AUDIT_NLGRP_READLOG - 1)};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);

	if (fd < 0 || only(cap) < 0)
		return setup_failed("audit_read");
	return judge("bind", bind(fd, (struct sockaddr *)&log, sizeof(log)));
}

static int cap_setfcap(unsigned cap)
{
	static const unsigned value[5] = {0x02000000}; // VFS_CAP_REVISION_2, no capability
	int fd = memory_file();

	if (fd < 0 || only(cap) < 0)
		return setup_failed("setfcap");
	return judge("fsetxattr",
		     syscall(SYS_fsetxattr, fd, "security.capability", value, sizeof(value), 0));
}

// cap_syslog asks how much of the kernel's log is unread, with the one capability left: with
// CAP_SYS_ADMIN the kernel would let it pass for old times' sake.
static int cap_syslog(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("syslog")
			     : judge("syslog", syscall(SYS_syslog, 9, NULL, 0));
}

static int cap_wake_alarm(unsigned cap)
{
	return only(cap) < 0
		   ? setup_failed("wake_alarm")
		   : granted("timerfd_create", timerfd_create(CLOCK_BOOTTIME_ALARM, TFD_CLOEXEC));
}

// cap_block_suspend: without the capability the flag is dropped silently; the kernel shows what it
// kept.
static int cap_block_suspend(unsigned cap)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLWAKEUP};
	char path[64], text[512], *mask;
	int fds[2], fd, epoll = epoll_create1(EPOLL_CLOEXEC);
	ssize_t n;

	if (epoll < 0 || pipe(fds) < 0 || only(cap) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event) < 0)
		return setup_failed("block_suspend");
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return setup_failed("block_suspend");
	text[n] = 0;
	mask = strstr(text, "events:");
	return mask && strtoul(mask + 7, NULL, 16) & EPOLLWAKEUP ? PROBE_OK : PROBE_DENIED;
}

static int cap_perfmon(unsigned cap)
{
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_SOFTWARE,
	    .size = sizeof(attr),
	    .config = PERF_COUNT_SW_CPU_CLOCK,
	    .disabled = 1,
	};

	return only(cap) < 0 ? setup_failed("perfmon")
			     : judge("perf_event_open", syscall(SYS_perf_event_open, &attr, -1, 0,
								-1, PERF_FLAG_FD_CLOEXEC));
}

static int cap_bpf(unsigned cap)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_QUEUE, .value_size = 4, .max_entries = 1};

	return only(cap) < 0 ? setup_failed("bpf")
			     : judge("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

// cap_checkpoint_restore starts a child under a number of its own choice.
static int cap_checkpoint_restore(unsigned cap)
{
	pid_t number = 31999;
	struct clone_args args = {
	    .exit_signal = SIGCHLD, .set_tid = (unsigned long)&number, .set_tid_size = 1};
	long child;

	if (only(cap) < 0)
		return setup_failed("checkpoint_restore");
	child = syscall(SYS_clone3, &args, sizeof(args));
	if (child == 0)
		_exit(0);
	if (child > 0)
		waitpid(child, NULL, 0);
	return granted("clone3", child);
}

const struct capability system_capabilities[] = {
    {"linux_immutable", CAP_LINUX_IMMUTABLE, cap_linux_immutable},
    {"net_bind_service", CAP_NET_BIND_SERVICE, cap_net_bind_service},
    {"net_broadcast", CAP_NET_BROADCAST, cap_net_broadcast},
    {"net_admin", CAP_NET_ADMIN, cap_net_admin},
    {"net_raw", CAP_NET_RAW, cap_net_raw},
    {"ipc_owner", CAP_IPC_OWNER, cap_ipc_owner},
    {"sys_module", CAP_SYS_MODULE, cap_sys_module},
    {"sys_rawio", CAP_SYS_RAWIO, cap_sys_rawio},
    {"sys_chroot", CAP_SYS_CHROOT, cap_sys_chroot},
    {"sys_pacct", CAP_SYS_PACCT, cap_sys_pacct},
    {"sys_admin", CAP_SYS_ADMIN, cap_sys_admin},
    {"sys_boot", CAP_SYS_BOOT, cap_sys_boot},
    {"sys_time", CAP_SYS_TIME, cap_sys_time},
    {"sys_tty_config", CAP_SYS_TTY_CONFIG, cap_sys_tty_config},
    {"audit_write", CAP_AUDIT_WRITE, cap_audit_write},
    {"audit_control", CAP_AUDIT_CONTROL, cap_audit_control},
    {"audit_read", CAP_AUDIT_READ, cap_audit_read},
    {"setfcap", CAP_SETFCAP, cap_setfcap},
    {"syslog", CAP_SYSLOG, cap_syslog},
    {"wake_alarm", CAP_WAKE_ALARM, cap_wake_alarm},
    {"block_suspend", CAP_BLOCK_SUSPEND, cap_block_suspend},
    {"perfmon", CAP_PERFMON, cap_perfmon},
    {"bpf", CAP_BPF, cap_bpf},
    {"checkpoint_restore", CAP_CHECKPOINT_RESTORE, cap_checkpoint_restore},
    {0},
};
