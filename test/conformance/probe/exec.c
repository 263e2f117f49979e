// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __aarch64__
#define LOADER "/lib/ld-linux-aarch64.so.1"
#else
#define LOADER "/lib64/ld-linux-x86-64.so.2"
#endif

#define MANY 64

int wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return setup_failed("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// run_program starts a program in a child and answers with the program's own exit status. The child
// is still this program when it calls exec, so the source of the operation is this copy of the
// probe.
int run_program(int (*start)(char **argv), char **argv)
{
	pid_t child = fork();

	if (child < 0)
		return setup_failed("fork");
	if (child == 0)
		_exit(start(argv));
	return wait_for(child);
}

int start_path(char **argv)
{
	syscall(SYS_execve, argv[0], argv, environ);
	return judge("execve", -1);
}

static int start_descriptor(char **argv)
{
	int fd = open(argv[0], O_PATH);

	if (fd < 0)
		return judge("open with O_PATH", -1);
	syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	return judge("execveat", -1);
}

static int run_exec(int argc, char **argv)
{
	(void)argc;
	return run_program(start_path, argv + 1);
}

static int run_exec_fd(int argc, char **argv)
{
	(void)argc;
	return run_program(start_descriptor, argv + 1);
}

// refused_in: the loader tells a denied open or mapping only by what it prints.
static int refused_in(const char *text)
{
	/* glibc gives no reason for a mapping that failed. */
	return strstr(text, "Permission denied") || strstr(text, "Operation not permitted") ||
	       strstr(text, "failed to map segment");
}

static int run_exec_loader(int argc, char **argv)
{
	char *loader[MANY + 2] = {LOADER};
	char output[4096];
	size_t used = 0;
	ssize_t n;
	int fds[2], code;
	pid_t child;

	for (int i = 1; i < argc && i < MANY; i++)
		loader[i] = argv[i];
	if (pipe(fds) < 0)
		return setup_failed("a pipe");
	child = fork();
	if (child < 0)
		return setup_failed("fork");
	if (child == 0) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		_exit(start_path(loader));
	}
	close(fds[1]);
	while (used < sizeof(output) - 1 &&
	       (n = read(fds[0], output + used, sizeof(output) - 1 - used)) > 0)
		used += n;
	output[used] = 0;
	say(output);
	code = wait_for(child);
	return code == 127 && refused_in(output) ? PROBE_DENIED : code;
}

static int copy_into(int to, const char *path)
{
	char block[65536];
	ssize_t n;
	int from = open(path, O_RDONLY | O_CLOEXEC);

	if (from < 0)
		return setup_failed("reading the program");
	while ((n = read(from, block, sizeof(block))) > 0)
		if (write(to, block, n) != n)
			return setup_failed("writing to memory");
	close(from);
	return n < 0 ? setup_failed("reading the program") : PROBE_OK;
}

static int start_memory(char **argv)
{
	int fd = syscall(SYS_memfd_create, "probe", 0);
	int code;

	if (fd < 0)
		return judge("memfd_create", -1);
	code = copy_into(fd, argv[0]);
	if (code != PROBE_OK)
		return code;
	syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	return judge("execveat", -1);
}

static int run_exec_memfd(int argc, char **argv)
{
	(void)argc;
	return run_program(start_memory, argv + 1);
}

// run_script leaves the script where it is: removing it would be one operation more.
static int run_script(int argc, char **argv)
{
	char path[64], line[4096];
	char *args[] = {path, NULL};
	int fd, length;

	(void)argc;
	snprintf(path, sizeof(path), "/opt/t/dir/script-%d", getpid());
	length = snprintf(line, sizeof(line), "#!%s\n", argv[1]);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0777);
	if (fd < 0 || write(fd, line, length) != length)
		return setup_failed("the script");
	close(fd);
	return run_program(start_path, args);
}

static int run_unshare_exec(int argc, char **argv)
{
	(void)argc;
	if (unshare(CLONE_NEWNS) < 0)
		return setup_failed("a mount namespace");
	return run_program(start_path, argv + 1);
}

const struct operation exec_operations[] = {
    {"exec", 1, MANY, run_exec},
    {"exec-fd", 1, MANY, run_exec_fd},
    {"exec-loader", 1, MANY, run_exec_loader},
    {"exec-memfd", 1, MANY, run_exec_memfd},
    {"script", 1, 1, run_script},
    {"unshare-exec", 1, MANY, run_unshare_exec},
    {0},
};
