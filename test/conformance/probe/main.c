// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#include "probe.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void say(const char *text)
{
	// One write to a pipe that the caller gave; a failure to print is no failure of the
	// operation.
	ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
	(void)ignored;
}

int judge(const char *what, long result)
{
	char line[256];
	int error = errno;

	if (result >= 0)
		return PROBE_OK;
	snprintf(line, sizeof(line), "probe: %s: %s\n", what, strerror(error));
	say(line);
	return error == EACCES || error == EPERM ? PROBE_DENIED : PROBE_FAILED;
}

int setup_failed(const char *what)
{
	char line[256];

	snprintf(line, sizeof(line), "probe: preparing %s: %s\n", what, strerror(errno));
	say(line);
	return PROBE_SETUP;
}

static const struct operation *find(const char *name)
{
	const struct operation *tables[] = {exec_operations, file_operations, net_operations,
					    other_operations};

	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct operation *o = tables[t]; o->name; o++)
			if (strcmp(o->name, name) == 0)
				return o;
	return NULL;
}

// print_only: the copy called `tool` only prints, whatever its arguments; so does every copy that
// was started without arguments, and every copy but the probe and the sources when the first
// argument is no operation (a program that is run with arguments of its own, or as the interpreter
// of a script).
static int print_only(int argc, char **argv, const struct operation *o)
{
	const char *base = strrchr(argv[0], '/');

	base = base ? base + 1 : argv[0];
	if (argc < 2 || strcmp(base, "tool") == 0)
		return 1;
	return !o && strncmp(base, "probe", 5) != 0 && strncmp(base, "src-", 4) != 0;
}

int main(int argc, char **argv)
{
	const struct operation *o = argc > 1 ? find(argv[1]) : NULL;

	if (argc < 1)
		return PROBE_USAGE;
	if (print_only(argc, argv, o)) {
		ssize_t ignored = write(STDOUT_FILENO, "hello\n", 6);
		(void)ignored;
		return PROBE_OK;
	}
	if (!o || argc - 2 < o->min || argc - 2 > o->max) {
		say("probe: unknown operation, or wrong number of arguments\n");
		return PROBE_USAGE;
	}
	return o->run(argc - 1, argv + 1);
}
