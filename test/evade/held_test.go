// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// held opens the file before the policies.
func held(use func(*os.File) ([]byte, error)) func(dir, target string) (func() ([]byte, error), error) {
	return heldAs(os.O_RDONLY, use)
}

func heldForWriting(use func(*os.File) ([]byte, error)) func(dir, target string) (func() ([]byte, error), error) {
	return heldAs(os.O_RDWR, use)
}

func heldAs(flags int, use func(*os.File) ([]byte, error)) func(dir, target string) (func() ([]byte, error), error) {
	return func(dir, target string) (func() ([]byte, error), error) {
		f, err := os.OpenFile(dir+"/"+target, flags, 0)
		return func() ([]byte, error) { return use(f) }, err
	}
}

const room = 64

func plainRead(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := unix.Read(int(f.Fd()), b)
	return b[:max(n, 0)], err
}

func positionedRead(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := unix.Pread(int(f.Fd()), b, 0)
	return b[:max(n, 0)], err
}

func vectorRead(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{b}, 0, 0)
	return b[:max(n, 0)], err
}

func mappedRead(f *os.File) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, len(token), unix.PROT_READ, unix.MAP_PRIVATE)
}

// sink is a file of the caller's own.
func sink() (*os.File, error) { return os.CreateTemp(os.Getenv("W"), "sink") }

func sinkContents(out *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out.Name())
}

func sentFile(f *os.File) ([]byte, error) {
	out, err := sink()
	if err != nil {
		return nil, err
	}
	_, err = unix.Sendfile(int(out.Fd()), int(f.Fd()), nil, room)
	return sinkContents(out, err)
}

func copiedRange(f *os.File) ([]byte, error) {
	out, err := sink()
	if err != nil {
		return nil, err
	}
	_, err = unix.CopyFileRange(int(f.Fd()), nil, int(out.Fd()), nil, room, 0)
	return sinkContents(out, err)
}

func spliced(f *os.File) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := unix.Splice(int(f.Fd()), nil, int(w.Fd()), nil, room, 0); err != nil {
		return nil, err
	}
	return plainRead(r)
}

func reopened(f *os.File) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func inherited(f *os.File) ([]byte, error) {
	c := exec.Command("/bin/cat", "/dev/fd/3")
	c.Args = []string{"cat"}
	c.Stdin = f
	return output(c)
}

func plainWrite(f *os.File) ([]byte, error) {
	_, err := unix.Write(int(f.Fd()), []byte("x"))
	return nil, err
}

func vectorWrite(f *os.File) ([]byte, error) {
	_, err := unix.Pwritev(int(f.Fd()), [][]byte{[]byte("x")}, 0)
	return nil, err
}

func truncated(f *os.File) ([]byte, error) { return nil, unix.Ftruncate(int(f.Fd()), 3) }

func punched(f *os.File) ([]byte, error) { return nil, unix.Fallocate(int(f.Fd()), 0, 0, 4096) }

func mappedWrite(f *os.File) ([]byte, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	b[0] = 'x'
	return nil, unix.Msync(b, unix.MS_SYNC)
}

func protectedWrite(f *os.File) ([]byte, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, err
	}
	b[0] = 'x'
	return nil, unix.Msync(b, unix.MS_SYNC)
}

// own is an open file of the caller's with something in it.
func own() (*os.File, error) { return os.Open(os.Getenv("D") + "/w/mine") }

func copiedTo(f *os.File) ([]byte, error) {
	in, err := own()
	if err != nil {
		return nil, err
	}
	_, err = unix.CopyFileRange(int(in.Fd()), nil, int(f.Fd()), nil, 4, 0)
	return nil, err
}

func splicedTo(f *os.File) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := w.WriteString("x"); err != nil {
		return nil, err
	}
	_, err = unix.Splice(int(r.Fd()), nil, int(f.Fd()), nil, 1, 0)
	return nil, err
}

func modeChanged(f *os.File) ([]byte, error) { return nil, unix.Fchmod(int(f.Fd()), 0o700) }

func attributeChanged(f *os.File) ([]byte, error) {
	return nil, unix.Fsetxattr(int(f.Fd()), "user.evade", []byte("x"), 0)
}

// asynchronousRead is io_submit(2); the structures are those of linux/aio_abi.h.
func asynchronousRead(f *os.File) ([]byte, error) {
	var context uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&context)), 0); errno != 0 {
		return nil, errno
	}
	b := make([]byte, room)
	block := struct {
		data            uint64
		key, flags      uint32
		opcode          uint16
		priority        int16
		fd              uint32
		buffer, length  uint64
		offset, unused  uint64
		moreFlags, evfd uint32
	}{fd: uint32(f.Fd()), buffer: uint64(uintptr(unsafe.Pointer(&b[0]))), length: room} // opcode 0: pread
	list := [1]unsafe.Pointer{unsafe.Pointer(&block)}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, context, 1, uintptr(unsafe.Pointer(&list[0]))); errno != 0 {
		return nil, errno
	}
	var done [4]int64 // data, object, result, result2
	if _, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, context, 1, 1, uintptr(unsafe.Pointer(&done[0])), 0, 0); errno != 0 {
		return nil, errno
	}
	if done[2] < 0 {
		return nil, unix.Errno(-done[2])
	}
	return b[:done[2]], nil
}
