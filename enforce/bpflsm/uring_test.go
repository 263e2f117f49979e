// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of the kernel's uapi: operations of an io_uring.
const (
	ringRead  = 22
	ringWrite = 23
)

// ringParams is struct io_uring_params.
type ringParams struct {
	entries, cqEntries, flags, threadCPU, threadIdle, features, wq uint32
	_                                                              [3]uint32
	sq                                                             struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
	cq                                                             struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset, addr  uint64
	length        uint32
	opFlags       uint32
	user          uint64
	_             uint64
	addr3, _      uint64
}

// ringAttempts is how often an operation is begun that the kernel cancels before it is carried out: up to 6.13 it does so when
// a signal, which Go sends to its own threads, keeps it from starting a worker.
const ringAttempts = 10

// ring carries out one operation through an io_uring of its own and answers its result.
func ring(entry ringEntry) error {
	err := ringOnce(entry)
	for n := 1; n < ringAttempts && errors.Is(err, unix.ECANCELED); n++ {
		err = ringOnce(entry)
	}
	return err
}

func ringOnce(entry ringEntry) error {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return unprepared("io_uring_setup", errno)
	}
	defer unix.Close(int(fd))
	var maps [3][]byte
	for i, size := range []uint32{p.sq.array + 4*p.entries, p.cq.cqes + 16*p.cqEntries, 64 * p.entries} {
		m, err := unix.Mmap(int(fd), []int64{0, 0x8000000, 0x10000000}[i], int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return unprepared("mapping the ring", err)
		}
		defer func() { _ = unix.Munmap(m) }()
		maps[i] = m
	}
	*(*ringEntry)(unsafe.Pointer(&maps[2][0])) = entry
	*(*uint32)(unsafe.Pointer(&maps[0][p.sq.array])) = 0
	atomic.AddUint32((*uint32)(unsafe.Pointer(&maps[0][p.sq.tail])), 1)
	if _, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, 1, 0, 0); errno != 0 {
		return unprepared("io_uring_enter", errno)
	}
	result := *(*int32)(unsafe.Pointer(&maps[1][p.cq.cqes+8]))
	if result < 0 {
		return unix.Errno(-result)
	}
	return nil
}

// pinned calls with buffers held where they are.
func pinned(call func() error, buffers ...[]byte) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, b := range buffers {
		pin.Pin(&b[0])
	}
	return call()
}

// ringTransfer reads or writes one byte.
func ringTransfer(opcode uint8, fd int) error {
	b := []byte("x")
	e := ringEntry{opcode: opcode, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), length: 1}
	return pinned(func() error { return ring(e) }, b)
}
