// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

// HELD is the descriptor that a held file is passed on; whoever starts the probe opened it.
#define HELD 3

static int read_one(int fd)
{
	char byte;

	return judge("read", read(fd, &byte, 1));
}

static int write_one(int fd)
{
	return judge("write", write(fd, "x", 1));
}

static int open_and(const char *path, int flags, int (*then)(int fd))
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0666);

	return fd < 0 ? judge("openat", -1) : then(fd);
}

int read_path(const char *path)
{
	return open_and(path, O_RDONLY, read_one);
}

static int op_read(int argc, char **argv)
{
	(void)argc;
	return read_path(argv[1]);
}

static int op_read_openat2(int argc, char **argv)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
	int fd = syscall(SYS_openat2, AT_FDCWD, argv[1], &how, sizeof(how));

	(void)argc;
	return fd < 0 ? judge("openat2", -1) : read_one(fd);
}

// op_read_handle goes to the file's directory first: the handle is opened relative to a mount, and
// naming the mount must not open anything (chdir is no file operation).
static int op_read_handle(int argc, char **argv)
{
	struct {
		struct file_handle head;
		unsigned char bytes[MAX_HANDLE_SZ];
	} handle = {.head.handle_bytes = MAX_HANDLE_SZ};
	char directory[4096], *slash;
	int mount, fd;

	(void)argc;
	snprintf(directory, sizeof(directory), "%s", argv[1]);
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	if (slash && chdir(directory) < 0)
		return setup_failed("the directory");
	if (syscall(SYS_name_to_handle_at, AT_FDCWD, argv[1], &handle, &mount, 0) < 0)
		return setup_failed("the handle");
	fd = syscall(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? judge("open_by_handle_at", -1) : read_one(fd);
}

static int op_write(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_WRONLY, write_one);
}

static int op_append(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_WRONLY | O_APPEND, write_one);
}

static int store_shared(int fd)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return judge("mmap", -1);
	*(volatile char *)page = 'm';
	return PROBE_OK;
}

static int op_rdwr_mmap(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_RDWR, store_shared);
}

static int op_truncate(int argc, char **argv)
{
	(void)argc;
	return judge("truncate", syscall(SYS_truncate, argv[1], 1L));
}

static int truncate_one(int fd)
{
	return judge("ftruncate", syscall(SYS_ftruncate, fd, 1L));
}

static int op_ftruncate(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_WRONLY, truncate_one);
}

static int keep(int fd)
{
	(void)fd;
	return PROBE_OK;
}

static int op_create(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_WRONLY | O_CREAT | O_EXCL, keep);
}

static int op_unlink(int argc, char **argv)
{
	(void)argc;
	return judge("unlinkat", syscall(SYS_unlinkat, AT_FDCWD, argv[1], 0));
}

static int op_rename(int argc, char **argv)
{
	(void)argc;
	return judge("renameat2", syscall(SYS_renameat2, AT_FDCWD, argv[1], AT_FDCWD, argv[2], 0));
}

static int op_link(int argc, char **argv)
{
	(void)argc;
	return judge("linkat", syscall(SYS_linkat, AT_FDCWD, argv[1], AT_FDCWD, argv[2], 0));
}

static int op_symlink(int argc, char **argv)
{
	(void)argc;
	return judge("symlinkat", syscall(SYS_symlinkat, argv[1], AT_FDCWD, argv[2]));
}

static int op_mkdir(int argc, char **argv)
{
	(void)argc;
	return judge("mkdirat", syscall(SYS_mkdirat, AT_FDCWD, argv[1], 0777));
}

static int op_rmdir(int argc, char **argv)
{
	(void)argc;
	return judge("unlinkat", syscall(SYS_unlinkat, AT_FDCWD, argv[1], AT_REMOVEDIR));
}

static int op_mknod(int argc, char **argv)
{
	(void)argc;
	return judge("mknodat", syscall(SYS_mknodat, AT_FDCWD, argv[1], S_IFIFO | 0666, 0));
}

// op_chmod sets every permission: what may be read, written or run before may be so afterwards.
static int op_chmod(int argc, char **argv)
{
	(void)argc;
	return judge("fchmodat", syscall(SYS_fchmodat, AT_FDCWD, argv[1], 0777));
}

static int op_chown(int argc, char **argv)
{
	(void)argc;
	return judge("fchownat", syscall(SYS_fchownat, AT_FDCWD, argv[1], getuid(), -1, 0));
}

static int op_setxattr(int argc, char **argv)
{
	(void)argc;
	return judge("setxattr", syscall(SYS_setxattr, argv[1], "user.muster", "x", 1, 0));
}

static int list_one(int fd)
{
	char entries[4096];

	return judge("getdents64", syscall(SYS_getdents64, fd, entries, sizeof(entries)));
}

static int op_list(int argc, char **argv)
{
	(void)argc;
	return open_and(argv[1], O_RDONLY | O_DIRECTORY, list_one);
}

static int op_chdir_read(int argc, char **argv)
{
	(void)argc;
	if (chdir(argv[1]) < 0)
		return setup_failed("the directory");
	return read_path(argv[2]);
}

static int op_held_write(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	if (fcntl(HELD, F_GETFD) < 0)
		return setup_failed("the held descriptor");
	return write_one(HELD);
}

static int private_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		return -1;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static int op_bind_mount_read(int argc, char **argv)
{
	(void)argc;
	if (private_mounts() < 0)
		return setup_failed("a mount namespace");
	if (mount(argv[1], argv[2], NULL, MS_BIND, NULL) < 0)
		return setup_failed("the bind mount");
	return read_path(argv[2]);
}

static int op_unshare_read(int argc, char **argv)
{
	(void)argc;
	return private_mounts() < 0 ? setup_failed("a mount namespace") : read_path(argv[1]);
}

static int op_userns_read(int argc, char **argv)
{
	(void)argc;
	return unshare(CLONE_NEWUSER) < 0 ? setup_failed("a user namespace") : read_path(argv[1]);
}

const struct operation file_operations[] = {
    {"read", 1, 1, op_read},
    {"read-openat2", 1, 1, op_read_openat2},
    {"read-io_uring", 1, 1, run_io_uring},
    {"read-handle", 1, 1, op_read_handle},
    {"write", 1, 1, op_write},
    {"append", 1, 1, op_append},
    {"rdwr-mmap", 1, 1, op_rdwr_mmap},
    {"truncate", 1, 1, op_truncate},
    {"ftruncate", 1, 1, op_ftruncate},
    {"create", 1, 1, op_create},
    {"unlink", 1, 1, op_unlink},
    {"rename", 2, 2, op_rename},
    {"link", 2, 2, op_link},
    {"symlink", 2, 2, op_symlink},
    {"mkdir", 1, 1, op_mkdir},
    {"rmdir", 1, 1, op_rmdir},
    {"mknod", 1, 1, op_mknod},
    {"chmod", 1, 1, op_chmod},
    {"chown", 1, 1, op_chown},
    {"setxattr", 1, 1, op_setxattr},
    {"list", 1, 1, op_list},
    {"chdir-read", 2, 2, op_chdir_read},
    {"held-write", 1, 1, op_held_write},
    {"bind-mount-read", 2, 2, op_bind_mount_read},
    {"unshare-read", 1, 1, op_unshare_read},
    {"userns-read", 1, 1, op_userns_read},
    {0},
};
