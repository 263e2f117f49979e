// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd;
	struct io_uring_params params;
	char *queues;
	struct io_uring_sqe *entries;
};

static int ring_make(struct ring *r)
{
	size_t sq, cq;

	memset(r, 0, sizeof(*r));
	r->fd = syscall(SYS_io_uring_setup, 1, &r->params);
	if (r->fd < 0)
		return -1;
	sq = r->params.sq_off.array + r->params.sq_entries * sizeof(unsigned);
	cq = r->params.cq_off.cqes + r->params.cq_entries * sizeof(struct io_uring_cqe);
	r->queues = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			 r->fd, IORING_OFF_SQ_RING);
	r->entries =
	    mmap(NULL, r->params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	return r->queues == MAP_FAILED || (void *)r->entries == MAP_FAILED ? -1 : 0;
}

// ring_do submits one request, waits for it and returns its result as a system call would.
static long ring_do(struct ring *r, struct io_uring_sqe request)
{
	unsigned *tail = (unsigned *)(r->queues + r->params.sq_off.tail);
	unsigned *mask = (unsigned *)(r->queues + r->params.sq_off.ring_mask);
	unsigned *array = (unsigned *)(r->queues + r->params.sq_off.array);
	unsigned *head = (unsigned *)(r->queues + r->params.cq_off.head);
	unsigned *done = (unsigned *)(r->queues + r->params.cq_off.ring_mask);
	struct io_uring_cqe *answers = (struct io_uring_cqe *)(r->queues + r->params.cq_off.cqes);
	int result;

	r->entries[*tail & *mask] = request;
	array[*tail & *mask] = *tail & *mask;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -1;
	result = answers[*head & *done].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

// run_io_uring asks for a kernel worker (IOSQE_ASYNC): the harder case, in which the file is opened
// by another thread than the one that submitted the request.
int run_io_uring(int argc, char **argv)
{
	struct io_uring_sqe open_it = {
	    .opcode = IORING_OP_OPENAT,
	    .flags = IOSQE_ASYNC,
	    .fd = AT_FDCWD,
	    .addr = (unsigned long)argv[1],
	    .open_flags = O_RDONLY | O_CLOEXEC,
	};
	struct io_uring_sqe read_it = {.opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .len = 1};
	struct ring ring;
	char byte;
	long fd;

	(void)argc;
	if (ring_make(&ring) < 0)
		return setup_failed("io_uring");
	fd = ring_do(&ring, open_it);
	if (fd < 0)
		return judge("IORING_OP_OPENAT", -1);
	read_it.fd = fd;
	read_it.addr = (unsigned long)&byte;
	return judge("IORING_OP_READ", ring_do(&ring, read_it));
}
