// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// The resident helper of a subject. It is started before the policies, then forks and executes what
// the runner asks for, so that no allow-list has to name the runner. While it serves it opens no
// file: what it needs of terminals and held files it was told to open beforehand.
//
// Requests come on standard input, answers go to standard output; both are a stream of messages:
// four bytes of length, big endian, then fields that end in a zero byte.
//
//	ttys N                             -> ready               makes N terminals
//	open PATH                          -> opened N | error WHY opens for writing, to be held
//	run UID GID TTY HELD ARGV...       -> started PID, then exit CODE OUTPUT
//
// HELD is the number of a held file or -1. CODE is the exit status, 128 and the signal's number, or
// 126 when the program could not be started; OUTPUT is what it printed, cut.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	MAX_MESSAGE = 1 << 20,
	MAX_FIELDS = 256,
	MAX_OPEN = 64,
	MAX_OUTPUT = 8192,
	NOT_STARTED = 126
};

static char message[MAX_MESSAGE];
static char *fields[MAX_FIELDS + 1];
static int terminals[MAX_OPEN], terminal_count, terminal_next;
static int held[MAX_OPEN], held_count;

static char *const environment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/",
    "LC_ALL=C",
    NULL,
};

static void give_up(const char *what)
{
	perror(what);
	exit(1);
}

static size_t read_fully(int fd, char *to, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t r = read(fd, to + got, n - got);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return got;
		got += r;
	}
	return got;
}

static void write_fully(int fd, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, from, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			give_up("helper: answering");
		from += w;
		n -= w;
	}
}

// receive reads one message into fields and returns their number, or 0 at the end of the stream.
static int receive(void)
{
	unsigned char head[4];
	uint32_t length;
	int n = 0;

	if (read_fully(STDIN_FILENO, (char *)head, 4) != 4)
		return 0;
	length = (uint32_t)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3];
	if (length == 0 || length > MAX_MESSAGE ||
	    read_fully(STDIN_FILENO, message, length) != length || message[length - 1])
		return 0;
	for (uint32_t at = 0; at < length && n < MAX_FIELDS; at += strlen(message + at) + 1)
		fields[n++] = message + at;
	fields[n] = NULL;
	return n;
}

// answer sends a word and a text; zero bytes inside the text never occur.
static void answer(const char *word, const char *text)
{
	size_t a = strlen(word) + 1, b = strlen(text) + 1, n = a + b;
	unsigned char head[4] = {n >> 24, n >> 16, n >> 8, n};

	write_fully(STDOUT_FILENO, (char *)head, 4);
	write_fully(STDOUT_FILENO, word, a);
	write_fully(STDOUT_FILENO, text, b);
}

static void answer_number(const char *word, long number)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", number);
	answer(word, text);
}

static void make_terminals(int n)
{
	int unlock = 0;

	for (int i = 0; i < n && terminal_count < MAX_OPEN; i++) {
		int slave, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);

		if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
			give_up("helper: a terminal");
		slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (slave < 0)
			give_up("helper: a terminal");
		terminals[terminal_count++] = slave;
	}
	answer("ready", "");
}

static void hold(const char *path)
{
	int fd = held_count < MAX_OPEN ? open(path, O_WRONLY | O_CLOEXEC) : -1;

	if (fd < 0) {
		answer("error", strerror(errno));
		return;
	}
	// Out of the way of descriptor 3, which the probe gets it on.
	held[held_count] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	close(fd);
	answer_number("opened", held_count++);
}

struct order {
	uid_t uid;
	gid_t gid;
	int terminal; // descriptor or -1
	int held;     // descriptor or -1
	char **argv;
};

// child becomes what was ordered and never returns. It has no terminal, or the given one as its
// controlling terminal; its standard streams are pipes, which no rule speaks of.
static void child(const struct order *o, int in, int out)
{
	setsid();
	if (o->terminal >= 0 && ioctl(o->terminal, TIOCSCTTY, 0) < 0)
		goto failed;
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		goto failed;
	if (o->held >= 0 && dup2(o->held, 3) < 0)
		goto failed;
	umask(0);
	if (chdir("/") < 0 || setgroups(0, NULL) < 0 || setresgid(o->gid, o->gid, o->gid) < 0 ||
	    setresuid(o->uid, o->uid, o->uid) < 0)
		goto failed;
	signal(SIGPIPE, SIG_DFL);
	execve(o->argv[0], o->argv, environment);
failed:
	dprintf(2, "helper: starting %s: %s\n", o->argv[0], strerror(errno));
	_exit(NOT_STARTED);
}

// collect reads what there is and keeps the beginning; it returns 0 at the end of the stream.
static int collect(int fd, char *output, size_t *used)
{
	char rest[4096];
	ssize_t n;

	if (*used < MAX_OUTPUT) {
		n = read(fd, output + *used, MAX_OUTPUT - *used);
		if (n > 0)
			*used += n;
	} else {
		n = read(fd, rest, sizeof(rest));
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

// watch waits for the process, not for the end of its output: a process that it leaves behind may
// hold the pipe open.
static void watch(int process, int output_fd, char *output, size_t *used)
{
	struct pollfd polls[2] = {{.fd = process, .events = POLLIN},
				  {.fd = output_fd, .events = POLLIN}};

	fcntl(output_fd, F_SETFL, O_NONBLOCK);
	while (!(polls[0].revents & POLLIN)) {
		if (poll(polls, 2, -1) < 0 && errno != EINTR)
			give_up("helper: poll");
		if (polls[1].revents && !collect(output_fd, output, used))
			polls[1].fd = -1;
	}
	while (polls[1].fd >= 0 && collect(output_fd, output, used))
		;
}

static int exit_code(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			give_up("helper: waitpid");
	while (waitpid(-1, NULL, WNOHANG) > 0)
		; // what earlier steps left behind and has ended
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run(const struct order *o)
{
	char output[MAX_OUTPUT + 16];
	size_t used = 0;
	int in[2], out[2], process, code;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		give_up("helper: a pipe");
	pid = fork();
	if (pid < 0)
		give_up("helper: fork");
	if (pid == 0)
		child(o, in[0], out[1]);
	close(in[0]);
	close(in[1]);
	close(out[1]);
	answer_number("started", pid);
	process = syscall(SYS_pidfd_open, pid, 0);
	if (process < 0)
		give_up("helper: pidfd_open");
	watch(process, out[0], output, &used);
	close(process);
	close(out[0]);
	code = exit_code(pid);
	for (size_t i = 0; i < used; i++)
		if (!output[i])
			output[i] = '?';
	output[used] = 0;
	memmove(output + 4, output, used + 1);
	snprintf(output, 4, "%03d", code);
	output[3] = ' ';
	answer("exit", output);
}

static int number_at(int i, int limit)
{
	int n = atoi(fields[i]);

	return n >= 0 && n < limit ? n : -1;
}

static void order(int count)
{
	struct order o = {.terminal = -1, .held = -1};
	int keep;

	if (count < 6) {
		answer("error", "a run needs UID GID TTY HELD ARGV");
		return;
	}
	o.uid = atoi(fields[1]);
	o.gid = atoi(fields[2]);
	if (atoi(fields[3])) {
		if (terminal_next >= terminal_count) {
			answer("error", "no terminal left");
			return;
		}
		o.terminal = terminals[terminal_next++];
	}
	keep = number_at(4, held_count);
	if (keep >= 0)
		o.held = held[keep];
	o.argv = fields + 5;
	run(&o);
}

int main(void)
{
	int count;

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while ((count = receive()) > 0) {
		if (strcmp(fields[0], "ttys") == 0 && count == 2)
			make_terminals(atoi(fields[1]));
		else if (strcmp(fields[0], "open") == 0 && count == 2)
			hold(fields[1]);
		else if (strcmp(fields[0], "run") == 0)
			order(count);
		else
			answer("error", "unknown request");
	}
	return 0;
}
