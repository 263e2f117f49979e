// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// The probe tries exactly one operation with the raw system call and says how it went by its exit
// status. Static, no file is opened at start: under an allow-list nothing but the operation itself
// may touch a file.

#ifndef MUSTER_PROBE_H
#define MUSTER_PROBE_H

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

enum {
	PROBE_OK = 0,
	PROBE_USAGE = 2,
	PROBE_SETUP =
	    3, // what had to be there before the operation could be tried was not to be had
	PROBE_FAILED = 4,  // the operation failed for another reason than permission
	PROBE_DENIED = 13, // EACCES or EPERM
};

// An operation gets its arguments (argv[0] is its name) and returns an exit status.
struct operation {
	const char *name;
	int min, max; // number of arguments
	int (*run)(int argc, char **argv);
};

extern const struct operation exec_operations[];
extern const struct operation file_operations[];
extern const struct operation net_operations[];
extern const struct operation other_operations[];

// judge turns a system call's result into an exit status, and says a failure on standard error.
int judge(const char *what, long result);
// setup_failed reports that a preparation failed; it never reads as a denial.
int setup_failed(const char *what);
void say(const char *text);

int run_program(int (*start)(char **argv), char **argv);
int wait_for(pid_t child);
int start_path(char **argv);
int read_path(const char *path);

int run_cap(int argc, char **argv);
int run_syscall(int argc, char **argv);
int run_io_uring(int argc, char **argv);

// only leaves one capability effective, so that no other one can stand in for it.
int only(unsigned cap);

#endif
