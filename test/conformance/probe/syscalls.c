// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// HERE stands for AT_FDCWD, PATH for the operation's path.
enum argument { NONE = 0, PATH = 1, HERE = 2 };

// A system call by its name. Up to six arguments: kinds says which are taken from outside, the rest
// are in values. Calls with a path come with the values that make them succeed on an ordinary
// fixture.
struct call {
	const char *name;
	long number;
	unsigned char kinds[6];
	long values[6];
};

static char unused[4096];

static const struct call calls[] = {
#ifdef SYS_open // the calls without a directory descriptor exist on old architectures only
    {"open", SYS_open, {PATH}, {0, O_RDONLY}},
    {"creat", SYS_creat, {PATH}, {0, 0666}},
    {"unlink", SYS_unlink, {PATH}, {0}},
    {"rmdir", SYS_rmdir, {PATH}, {0}},
    {"mkdir", SYS_mkdir, {PATH}, {0, 0777}},
    {"mknod", SYS_mknod, {PATH}, {0, S_IFIFO | 0666}},
    {"chmod", SYS_chmod, {PATH}, {0, 0777}},
    {"chown", SYS_chown, {PATH}, {0, -1, -1}},
    {"lchown", SYS_lchown, {PATH}, {0, -1, -1}},
    {"access", SYS_access, {PATH}, {0, F_OK}},
    {"stat", SYS_stat, {PATH}, {0, (long)unused}},
    {"lstat", SYS_lstat, {PATH}, {0, (long)unused}},
    {"readlink", SYS_readlink, {PATH}, {0, (long)unused, sizeof(unused)}},
#endif
    {"openat", SYS_openat, {HERE, PATH}, {0, 0, O_RDONLY}},
    {"unlinkat", SYS_unlinkat, {HERE, PATH}, {0}},
    {"mkdirat", SYS_mkdirat, {HERE, PATH}, {0, 0, 0777}},
    {"mknodat", SYS_mknodat, {HERE, PATH}, {0, 0, S_IFIFO | 0666}},
    {"fchmodat", SYS_fchmodat, {HERE, PATH}, {0, 0, 0777}},
    {"fchownat", SYS_fchownat, {HERE, PATH}, {0, 0, -1, -1}},
    {"faccessat", SYS_faccessat, {HERE, PATH}, {0, 0, F_OK}},
    {"newfstatat", SYS_newfstatat, {HERE, PATH}, {0, 0, (long)unused}},
    {"statx", SYS_statx, {HERE, PATH}, {0, 0, 0, 0x7ff, (long)unused}},
    {"readlinkat", SYS_readlinkat, {HERE, PATH}, {0, 0, (long)unused, sizeof(unused)}},
    {"truncate", SYS_truncate, {PATH}, {0, 1}},
    {"statfs", SYS_statfs, {PATH}, {0, (long)unused}},
    {"utimensat", SYS_utimensat, {HERE, PATH}, {0}},
    {"chdir", SYS_chdir, {PATH}, {0}},
    {"chroot", SYS_chroot, {PATH}, {0}},
    {"setxattr", SYS_setxattr, {PATH}, {0, (long)"user.muster", (long)"x", 1}},
    {"getxattr", SYS_getxattr, {PATH}, {0, (long)"user.muster", (long)unused, sizeof(unused)}},
    {"listxattr", SYS_listxattr, {PATH}, {0, (long)unused, sizeof(unused)}},
    {"removexattr", SYS_removexattr, {PATH}, {0, (long)"user.muster"}},
    {"umount2", SYS_umount2, {PATH}, {0}},
    {"getpid", SYS_getpid, {0}, {0}},
    {"getuid", SYS_getuid, {0}, {0}},
    {"setuid", SYS_setuid, {0}, {0}},
    {"setgid", SYS_setgid, {0}, {0}},
    {"setsid", SYS_setsid, {0}, {0}},
    {"uname", SYS_uname, {0}, {(long)unused}},
    {"kill", SYS_kill, {0}, {0, 0}},
    {"unshare", SYS_unshare, {0}, {0}},
    {"socket", SYS_socket, {0}, {1, 1, 0}},
    {"umask", SYS_umask, {0}, {022}},
    {"sync", SYS_sync, {0}, {0}},
    {"sched_yield", SYS_sched_yield, {0}, {0}},
    {"personality", SYS_personality, {0}, {0xffffffff}},
    {"memfd_create", SYS_memfd_create, {0}, {(long)"probe", 0}},
    {"ptrace", SYS_ptrace, {0}, {0}}, // PTRACE_TRACEME
};

int run_syscall(int argc, char **argv)
{
	long a[6];

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const struct call *c = &calls[i];

		if (strcmp(c->name, argv[1]) != 0)
			continue;
		for (int k = 0; k < 6; k++) {
			a[k] = c->kinds[k] == HERE ? AT_FDCWD : c->values[k];
			if (c->kinds[k] != PATH)
				continue;
			if (argc < 3)
				return PROBE_USAGE;
			a[k] = (long)argv[2];
		}
		return judge(c->name, syscall(c->number, a[0], a[1], a[2], a[3], a[4], a[5]));
	}
	say("probe: this system call is not in the probe's table\n");
	return PROBE_USAGE;
}
