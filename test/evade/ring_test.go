// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/io_uring.h.
const (
	opRead      = 22 // IORING_OP_READ
	opWrite     = 23
	opOpenat    = 18
	ringEnter   = 426
	ringSetup   = 425
	ringEvents  = 1 // IORING_ENTER_GETEVENTS
	ringOffRing = 0
	ringOffSQEs = 0x10000000
	ringParams  = 120
)

// submit carries out one entry of io_uring and returns its result. Offsets of struct io_uring_params: sq_off begins at 40
// (head, tail, ring_mask, ring_entries, flags, dropped, array), cq_off at 80 (…, cqes at 100).
func submit(opcode byte, fd int32, address unsafe.Pointer, length uint32, offset uint64, flags uint32) (int, error) {
	var params [ringParams]byte
	ring, _, errno := unix.Syscall(ringSetup, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(ring))
	at := func(offset int) uint32 { return binary.NativeEndian.Uint32(params[offset:]) }
	shared, err := unix.Mmap(int(ring), ringOffRing, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	entries, err := unix.Mmap(int(ring), ringOffSQEs, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	entries[0] = opcode
	binary.NativeEndian.PutUint32(entries[4:], uint32(fd))
	binary.NativeEndian.PutUint64(entries[8:], offset)
	binary.NativeEndian.PutUint64(entries[16:], uint64(uintptr(address)))
	binary.NativeEndian.PutUint32(entries[24:], length)
	binary.NativeEndian.PutUint32(entries[28:], flags)
	binary.NativeEndian.PutUint32(shared[at(64):], 0) // array[0]
	tail := (*uint32)(unsafe.Pointer(&shared[at(44)]))
	atomic.AddUint32(tail, 1)
	if _, _, errno := unix.Syscall6(ringEnter, ring, 1, 1, ringEvents, 0, 0); errno != 0 {
		return 0, errno
	}
	result := int32(binary.NativeEndian.Uint32(shared[at(100)+8:]))
	if result < 0 {
		return 0, unix.Errno(-result)
	}
	return int(result), nil
}

func readRing(dir, target string) (attempt, error) {
	path, err := unix.BytePtrFromString(dir + "/" + target)
	return func() ([]byte, error) {
		return contents(submit(opOpenat, unix.AT_FDCWD, unsafe.Pointer(path), 0, 0, unix.O_RDONLY))
	}, err
}

func ringRead(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := submit(opRead, int32(f.Fd()), unsafe.Pointer(&b[0]), room, 0, 0)
	return b[:n], err
}

func ringWrite(f *os.File) ([]byte, error) {
	b := []byte("x")
	_, err := submit(opWrite, int32(f.Fd()), unsafe.Pointer(&b[0]), 1, 0, 0)
	return nil, err
}
