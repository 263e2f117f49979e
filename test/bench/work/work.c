// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0
//
// The measured program: one operation, N times, and what it cost in nanoseconds of CPU time, which are
// instructions when the lab counts them. C, static and small, because a runtime with threads and a garbage
// collector would be measured too. Prints "CPU WALL", totals of the N operations.
//
//   work getpid N          work stat N PATH        work open N PATH
//   work read N PATH       work write N PATH       work exec N PROGRAM
//   work pipe N            work connect N          work exit
//   work watch N PATH      opens PATH-never and PATH-always N times each, and prints how often the first was let in, the
//                          second was not, and how often there was another error.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *argument;
static int held = -1, ends[2];
static struct sockaddr_in address;

static void fail(const char *what)
{
	fprintf(stderr, "work: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void op_getpid(void)
{
	syscall(SYS_getpid);
}

static void op_stat(void)
{
	struct stat st;

	if (stat(argument, &st))
		fail("stat");
}

static void op_open(void)
{
	int fd = open(argument, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open");
	close(fd);
}

static void op_read(void)
{
	char byte;

	if (pread(held, &byte, 1, 0) != 1)
		fail("read");
}

static void op_write(void)
{
	if (pwrite(held, "x", 1, 0) != 1)
		fail("write");
}

/* A byte goes in, and the next time it comes out. */
static void op_pipe(void)
{
	static int full;
	char byte;

	if ((full ? read(ends[0], &byte, 1) : write(ends[1], "x", 1)) != 1)
		fail("pipe");
	full = !full;
}

static void op_exec(void)
{
	char *const args[] = {argument, "exit", NULL};
	char *const none[] = {NULL};
	int status;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		execve(argument, args, none);
		_exit(126);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("exec");
}

static void op_connect(void)
{
	int out = socket(AF_INET, SOCK_STREAM, 0), in;
	struct linger now = {.l_onoff = 1};

	if (out < 0 || connect(out, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	in = accept(held, NULL, NULL);
	if (in < 0)
		fail("accept");
	/* A reset leaves no socket in TIME_WAIT behind: ports would run out. */
	setsockopt(out, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(out);
	close(in);
}

static void hold_file(void)
{
	held = open(argument, O_RDWR);
	if (held < 0)
		fail("open");
}

static void hold_pipe(void)
{
	if (pipe(ends))
		fail("pipe");
}

static void hold_listener(void)
{
	socklen_t size = sizeof(address);

	held = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (held < 0 || bind(held, (struct sockaddr *)&address, size) || listen(held, 8) ||
	    getsockname(held, (struct sockaddr *)&address, &size))
		fail("listen");
}

static const struct {
	const char *name;
	void (*hold)(void);
	void (*once)(void);
} operations[] = {
	{"getpid", NULL, op_getpid},	{"stat", NULL, op_stat},
	{"open", NULL, op_open},	{"read", hold_file, op_read},
	{"write", hold_file, op_write}, {"exec", NULL, op_exec},
	{"connect", hold_listener, op_connect},
	{"pipe", hold_pipe, op_pipe},
};

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The CPU time of this process and of the children it has waited for. */
static uint64_t spent(void)
{
	struct rusage r;

	getrusage(RUSAGE_CHILDREN, &r);
	return now(CLOCK_PROCESS_CPUTIME_ID) +
	       (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ull +
	       (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ull;
}

static void measure(void (*once)(void), long times)
{
	uint64_t cpu, wall;
	long i;

	for (i = 0; i < 20; i++)
		once();
	cpu = spent();
	wall = now(CLOCK_MONOTONIC);
	for (i = 0; i < times; i++)
		once();
	wall = now(CLOCK_MONOTONIC) - wall;
	cpu = spent() - cpu;
	printf("%llu %llu\n", (unsigned long long)cpu, (unsigned long long)wall);
}

static int try_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static void watch(long times)
{
	long leaked = 0, refused = 0, other = 0, i;
	char never[256], always[256];
	int error;

	snprintf(never, sizeof(never), "%s-never", argument);
	snprintf(always, sizeof(always), "%s-always", argument);
	for (i = 0; i < times; i++) {
		error = try_open(never);
		leaked += !error;
		other += error && error != EACCES;
		error = try_open(always);
		refused += error == EACCES;
		other += error && error != EACCES;
	}
	printf("%ld %ld %ld\n", leaked, refused, other);
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;
	argument = argc > 3 ? argv[3] : NULL;
	if (argument && !strcmp(argv[1], "watch")) {
		watch(strtol(argv[2], NULL, 10));
		return 0;
	}
	for (i = 0; argc > 2 && i < sizeof(operations) / sizeof(operations[0]); i++) {
		if (strcmp(operations[i].name, argv[1]))
			continue;
		if (operations[i].hold)
			operations[i].hold();
		measure(operations[i].once, strtol(argv[2], NULL, 10));
		return 0;
	}
	fprintf(stderr, "work: usage: work OPERATION N [PATH]\n");
	return 2;
}
