// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"
#include "caps.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <stdio.h>
#include <unistd.h>

#define STRANGER 1001 // a user who is not the caller

int only(unsigned cap)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data) < 0)
		return -1;
	data[0].effective = data[1].effective = 0;
	data[cap / 32].effective = data[cap / 32].permitted & (1u << (cap % 32));
	return syscall(SYS_capset, &head, data);
}

int memory_file(void)
{
	return syscall(SYS_memfd_create, "probe", MFD_CLOEXEC);
}

// strangers_file is a file in memory that belongs to another user.
int strangers_file(void)
{
	int fd = memory_file();

	return fd < 0 || fchown(fd, STRANGER, STRANGER) < 0 ? -1 : fd;
}

static int cap_chown(unsigned cap)
{
	int fd = memory_file();

	return fd < 0 || only(cap) < 0 ? setup_failed("chown")
				       : judge("fchown", fchown(fd, STRANGER, -1));
}

// cap_dac_override opens a file for writing that gives nobody any right.
static int cap_dac_override(unsigned cap)
{
	char path[64];
	int fd = memory_file();

	if (fd < 0 || fchmod(fd, 0) < 0 || only(cap) < 0)
		return setup_failed("dac_override");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return judge("open", open(path, O_WRONLY | O_CLOEXEC));
}

// cap_dac_read_search: the right to open handles is checked before the handle is looked at.
static int cap_dac_read_search(unsigned cap)
{
	struct {
		struct file_handle head;
		unsigned char bytes[8];
	} handle = {.head = {.handle_bytes = 8, .handle_type = 1}};
	long result;

	if (only(cap) < 0)
		return setup_failed("dac_read_search");
	result = syscall(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY | O_CLOEXEC);
	return result < 0 && errno != EPERM && errno != EACCES ? PROBE_OK
							       : judge("open_by_handle_at", result);
}

static int cap_fowner(unsigned cap)
{
	int fd = strangers_file();

	return fd < 0 || only(cap) < 0 ? setup_failed("fowner") : judge("fchmod", fchmod(fd, 0600));
}

// cap_fsetid: without the capability the bit is dropped silently.
static int cap_fsetid(unsigned cap)
{
	struct stat st;
	int fd = memory_file();

	if (fd < 0 || fchown(fd, -1, STRANGER) < 0 || only(cap) < 0 || fchmod(fd, 02770) < 0 ||
	    fstat(fd, &st) < 0)
		return setup_failed("fsetid");
	return st.st_mode & S_ISGID ? PROBE_OK : PROBE_DENIED;
}

// resident starts a child that prepares itself, then waits until it is killed or this process ends
// (which it sees by the end of a pipe: a signal at the parent's death would need the very right
// that is tried).
static pid_t resident(int (*prepare)(void))
{
	int ready[2], alive[2];
	char byte = 0;
	pid_t child;

	if (pipe(ready) < 0 || pipe(alive) < 0)
		return -1;
	child = fork();
	if (child == 0) {
		close(alive[1]);
		byte = prepare() == 0;
		if (write(ready[1], &byte, 1) == 1 && byte)
			byte = read(alive[0], &byte, 1);
		_exit(1);
	}
	close(alive[0]);
	if (child > 0 && (read(ready[0], &byte, 1) != 1 || !byte))
		return -1;
	return child;
}

static int become_stranger(void)
{
	return setresuid(STRANGER, STRANGER, STRANGER);
}

static int become_undumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 0);
}

static int cap_kill(unsigned cap)
{
	pid_t child = resident(become_stranger);

	if (child < 0 || only(cap) < 0)
		return setup_failed("kill");
	return judge("kill", kill(child, SIGKILL));
}

static int cap_sys_ptrace(unsigned cap)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {&byte, 1};
	pid_t child = resident(become_undumpable);

	if (child < 0 || only(cap) < 0)
		return setup_failed("sys_ptrace");
	return judge("process_vm_readv", process_vm_readv(child, &here, 1, &there, 1, 0));
}

static int cap_setgid(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("setgid")
			     : judge("setresgid", setresgid(STRANGER, STRANGER, STRANGER));
}

static int cap_setuid(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("setuid")
			     : judge("setresuid", setresuid(STRANGER, STRANGER, STRANGER));
}

static int cap_setpcap(unsigned cap)
{
	return only(cap) < 0 ? setup_failed("setpcap")
			     : judge("prctl", prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM, 0, 0, 0));
}

static int cap_ipc_lock(unsigned cap)
{
	struct rlimit none = {0, 0};
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED || setrlimit(RLIMIT_MEMLOCK, &none) < 0 || only(cap) < 0)
		return setup_failed("ipc_lock");
	return judge("mlock", mlock(page, 4096));
}

static int cap_sys_nice(unsigned cap)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_NICE, &none);
	return only(cap) < 0 ? setup_failed("sys_nice")
			     : judge("setpriority", setpriority(PRIO_PROCESS, 0, -1));
}

static int cap_sys_resource(unsigned cap)
{
	struct rlimit low = {100, 100}, higher = {101, 101};

	if (setrlimit(RLIMIT_NOFILE, &low) < 0 || only(cap) < 0)
		return setup_failed("sys_resource");
	return judge("setrlimit", setrlimit(RLIMIT_NOFILE, &higher));
}

// cap_mknod: a device node is a file; there is no other choice.
static int cap_mknod(unsigned cap)
{
	char path[64];

	snprintf(path, sizeof(path), "/opt/t/dir/node-%d", getpid());
	return only(cap) < 0 ? setup_failed("mknod")
			     : judge("mknod", mknod(path, S_IFCHR | 0666, makedev(1, 3)));
}

// cap_lease: any answer but a refusal comes after the check (the lease itself may conflict).
static int cap_lease(unsigned cap)
{
	int fd = strangers_file(), result;

	if (fd < 0 || only(cap) < 0)
		return setup_failed("lease");
	result = fcntl(fd, F_SETLEASE, F_WRLCK);
	return result < 0 && errno == EAGAIN ? PROBE_OK : judge("fcntl", result);
}

static const struct capability table[] = {
    {"chown", CAP_CHOWN, cap_chown},
    {"dac_override", CAP_DAC_OVERRIDE, cap_dac_override},
    {"dac_read_search", CAP_DAC_READ_SEARCH, cap_dac_read_search},
    {"fowner", CAP_FOWNER, cap_fowner},
    {"fsetid", CAP_FSETID, cap_fsetid},
    {"kill", CAP_KILL, cap_kill},
    {"setgid", CAP_SETGID, cap_setgid},
    {"setuid", CAP_SETUID, cap_setuid},
    {"setpcap", CAP_SETPCAP, cap_setpcap},
    {"ipc_lock", CAP_IPC_LOCK, cap_ipc_lock},
    {"sys_ptrace", CAP_SYS_PTRACE, cap_sys_ptrace},
    {"sys_nice", CAP_SYS_NICE, cap_sys_nice},
    {"sys_resource", CAP_SYS_RESOURCE, cap_sys_resource},
    {"mknod", CAP_MKNOD, cap_mknod},
    {"lease", CAP_LEASE, cap_lease},
    {0},
};

static const struct capability *find(const struct capability *in, const char *name)
{
	for (; in->name; in++)
		if (strcasecmp(in->name, name) == 0)
			return in;
	return NULL;
}

int run_cap(int argc, char **argv)
{
	const struct capability *found = find(table, argv[1]);

	(void)argc;
	if (!found)
		found = find(system_capabilities, argv[1]);
	if (!found) {
		say("probe: no operation needs exactly this capability\n");
		return PROBE_USAGE;
	}
	return found->run(found->number);
}

const struct operation other_operations[] = {
    {"cap", 1, 1, run_cap},
    {"syscall", 1, 2, run_syscall},
    {0},
};
