// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/io_uring.h.
const (
	opRead            = 22 // IORING_OP_READ
	opWrite           = 23
	opOpenat          = 18
	opFallocate       = 17
	opRename          = 35
	opUnlink          = 36
	opMkdir           = 37
	opSymlink         = 38
	opLink            = 39
	ringWakeup        = 2      // IORING_ENTER_SQ_WAKEUP
	ringPolled        = 2      // IORING_SETUP_SQPOLL
	inWorker          = 1 << 4 // IOSQE_ASYNC
	fixedFile         = 1      // IOSQE_FIXED_FILE
	ringRegister      = 427
	ringRegisterFiles = 2
	ringEnter         = 426
	ringSetup         = 425
	ringEvents        = 1 // IORING_ENTER_GETEVENTS
	ringOffRing       = 0
	ringOffSQEs       = 0x10000000
	ringParams        = 120
)

// entry is one of io_uring.
type entry struct {
	opcode  byte
	flags   byte // IOSQE_…
	fd      int32
	address unsafe.Pointer
	bytes   uint64 // in the place of the address
	length  uint32
	offset  uint64
}

// submit carries out one entry of io_uring and returns its result.
func submit(opcode byte, fd int32, address unsafe.Pointer, length uint32, offset uint64) (int, error) {
	return entry{opcode: opcode, fd: fd, address: address, length: length, offset: offset}.submit(0, nil)
}

// canceledAttempts is how often one is submitted that the kernel cancels before it is carried out: up to 6.13 it does so when a
// signal, which Go sends to its own threads, keeps it from starting a worker.
const canceledAttempts = 10

// submit does so again while it is canceled.
func (e entry) submit(setup uint32, files []int32) (n int, err error) {
	for range canceledAttempts {
		if n, err = e.submitOnce(setup, files); !errors.Is(err, unix.ECANCELED) {
			break
		}
	}
	return n, err
}

// submitOnce uses a ring that is set up with these flags, with the files registered that are given. Offsets of struct
// io_uring_params: flags at 8, sq_off begins at 40 (head, tail, ring_mask, ring_entries, flags, dropped, array), cq_off at 80
// (…, cqes at 100).
func (e entry) submitOnce(setup uint32, files []int32) (int, error) {
	var params [ringParams]byte
	binary.NativeEndian.PutUint32(params[8:], setup)
	ring, _, errno := unix.Syscall(ringSetup, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(ring))
	if len(files) > 0 {
		if _, _, errno := unix.Syscall6(ringRegister, ring, ringRegisterFiles, uintptr(unsafe.Pointer(&files[0])), uintptr(len(files)), 0, 0); errno != 0 {
			return 0, errno
		}
	}
	at := func(offset int) uint32 { return binary.NativeEndian.Uint32(params[offset:]) }
	shared, err := unix.Mmap(int(ring), ringOffRing, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	entries, err := unix.Mmap(int(ring), ringOffSQEs, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	entries[0], entries[1] = e.opcode, e.flags
	binary.NativeEndian.PutUint32(entries[4:], uint32(e.fd))
	binary.NativeEndian.PutUint64(entries[8:], e.offset)
	binary.NativeEndian.PutUint64(entries[16:], uint64(uintptr(e.address))|e.bytes)
	binary.NativeEndian.PutUint32(entries[24:], e.length)
	binary.NativeEndian.PutUint32(shared[at(64):], 0) // array[0]
	tail := (*uint32)(unsafe.Pointer(&shared[at(44)]))
	atomic.AddUint32(tail, 1)
	if _, _, errno := unix.Syscall6(ringEnter, ring, 1, 1, ringEvents|ringWakeup, 0, 0); errno != 0 {
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
		return contents(submit(opOpenat, unix.AT_FDCWD, unsafe.Pointer(path), 0, 0))
	}, err
}

func ringRead(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := submit(opRead, int32(f.Fd()), unsafe.Pointer(&b[0]), room, 0)
	return b[:n], err
}

func ringWrite(f *os.File) ([]byte, error) {
	b := []byte("x")
	_, err := submit(opWrite, int32(f.Fd()), unsafe.Pointer(&b[0]), 1, 0)
	return nil, err
}

func ringReadAs(flags byte, setup uint32, fixed bool) func(f *os.File) ([]byte, error) {
	return func(f *os.File) ([]byte, error) {
		b := make([]byte, room)
		e := entry{opcode: opRead, flags: flags, fd: int32(f.Fd()), address: unsafe.Pointer(&b[0]), length: room}
		var files []int32
		if fixed {
			files, e.fd = []int32{e.fd}, 0
		}
		n, err := e.submit(setup, files)
		return b[:n], err
	}
}

func readRingAsync(dir, target string) (attempt, error) {
	path, err := unix.BytePtrFromString(dir + "/" + target)
	return func() ([]byte, error) {
		return contents(entry{opcode: opOpenat, flags: inWorker, fd: unix.AT_FDCWD, address: unsafe.Pointer(path)}.submit(0, nil))
	}, err
}

func ringWriteAsync(f *os.File) ([]byte, error) {
	b := []byte("x")
	_, err := entry{opcode: opWrite, flags: inWorker, fd: int32(f.Fd()), address: unsafe.Pointer(&b[0]), length: 1}.submit(0, nil)
	return nil, err
}

// ringFallocate makes the file a page longer; how much stands where others have an address.
func ringFallocate(f *os.File) ([]byte, error) {
	_, err := entry{opcode: opFallocate, fd: int32(f.Fd()), bytes: page}.submit(0, nil)
	return nil, err
}

func ringRename(dir, target string) (attempt, error) {
	from, err := unix.BytePtrFromString(dir + "/" + target)
	to, err2 := unix.BytePtrFromString(dir + "/w/renamed")
	return func() ([]byte, error) {
		at := int32(unix.AT_FDCWD)
		_, err := submit(opRename, at, unsafe.Pointer(from), uint32(at), uint64(uintptr(unsafe.Pointer(to))))
		return nil, err
	}, errors.Join(err, err2)
}

func ringUnlink(dir, target string) (attempt, error) {
	path, err := unix.BytePtrFromString(dir + "/" + target)
	return func() ([]byte, error) {
		_, err := submit(opUnlink, unix.AT_FDCWD, unsafe.Pointer(path), 0, 0)
		return nil, err
	}, err
}

// ringMake makes something at the object's path.
func ringMake(how func(dir string, path *byte) error) func(dir, target string) (attempt, error) {
	return func(dir, target string) (attempt, error) {
		path, err := unix.BytePtrFromString(dir + "/" + target)
		return func() ([]byte, error) { return reached(how(dir, path)) }, err
	}
}

func ringMkdir(_ string, path *byte) error {
	_, err := submit(opMkdir, unix.AT_FDCWD, unsafe.Pointer(path), 0o777, 0)
	return err
}

func ringSymlink(dir string, path *byte) error {
	to, err := unix.BytePtrFromString(dir + "/w/mine")
	if err != nil {
		return err
	}
	_, err = submit(opSymlink, unix.AT_FDCWD, unsafe.Pointer(to), 0, uint64(uintptr(unsafe.Pointer(path))))
	return err
}

func ringLink(dir string, path *byte) error {
	from, err := unix.BytePtrFromString(dir + "/w/mine")
	if err != nil {
		return err
	}
	at := int32(unix.AT_FDCWD)
	_, err = submit(opLink, at, unsafe.Pointer(from), uint32(at), uint64(uintptr(unsafe.Pointer(path))))
	return err
}
