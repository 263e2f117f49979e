// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of linux/fs.h that golang.org/x/sys has no name for.
const (
	getExtendedFlags = 0x801c581f // FS_IOC_FSGETXATTR
	setExtendedFlags = 0x401c5820
	noDump           = 0x40 // FS_NODUMP_FL
	noDumpExtended   = 0x80 // FS_XFLAG_NODUMP
)

func positionedVectors(f *os.File) ([]byte, error) {
	b := make([]byte, room)
	n, err := unix.Preadv(int(f.Fd()), [][]byte{b}, 0)
	return b[:max(n, 0)], err
}

func vmspliced(f *os.File) ([]byte, error) {
	b, err := mappedRead(f)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := unix.Vmsplice(int(w.Fd()), []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, 0); err != nil {
		return nil, err
	}
	return plainRead(r)
}

func teed(f *os.File) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := unix.Splice(int(f.Fd()), nil, int(w.Fd()), nil, room, 0); err != nil {
		return nil, err
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := unix.Tee(int(r.Fd()), int(w2.Fd()), room, 0); err != nil {
		return nil, err
	}
	return plainRead(r2)
}

// mapping maps the first page of the file before the policies.
func mapping(dir, target string, protection, flags int) (uintptr, error) {
	f, err := os.OpenFile(dir+"/"+target, os.O_RDWR, 0) // a shared mapping of what is open for reading is none to the kernel
	if err != nil {
		return 0, err
	}
	b, err := unix.MmapPtr(int(f.Fd()), 0, nil, page, protection, flags)
	return uintptr(b), errors.Join(err, f.Close())
}

// at is what stands where a token may.
func at(address uintptr) []byte {
	return append([]byte{}, unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), address)), len(token))...)
}

func mappedBefore(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ, unix.MAP_SHARED)
	return func() ([]byte, error) { return at(m), nil }, err
}

func grownMapping(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ, unix.MAP_SHARED)
	return func() ([]byte, error) {
		more, _, errno := unix.Syscall6(unix.SYS_MREMAP, m, page, 2*page, unix.MREMAP_MAYMOVE, 0, 0)
		if errno != 0 {
			return nil, errno
		}
		return at(more + page), nil
	}, err
}

// duplicatedMapping asks for a second mapping of the same pages; the file's second page is beyond the first.
func duplicatedMapping(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ, unix.MAP_SHARED)
	return func() ([]byte, error) {
		more, _, errno := unix.Syscall6(unix.SYS_MREMAP, m, 0, 2*page, unix.MREMAP_MAYMOVE, 0, 0)
		if errno != 0 {
			return nil, errno
		}
		return at(more + page), nil
	}, err
}

func otherPage(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ, unix.MAP_SHARED)
	return func() ([]byte, error) {
		if _, _, errno := unix.Syscall6(unix.SYS_REMAP_FILE_PAGES, m, page, 0, 1, 0, 0); errno != 0 {
			return nil, errno
		}
		return at(m), nil
	}, err
}

func raisedToRun(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ, unix.MAP_PRIVATE)
	return func() ([]byte, error) {
		if _, _, errno := unix.Syscall(unix.SYS_MPROTECT, m, page, unix.PROT_READ|unix.PROT_EXEC); errno != 0 {
			return nil, errno
		}
		return reached(nil)
	}, err
}

func writtenMapping(dir, target string) (attempt, error) {
	m, err := mapping(dir, target, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return func() ([]byte, error) {
		*(*byte)(unsafe.Add(unsafe.Pointer(nil), m)) = 'x'
		return nil, nil
	}, err
}

func advised(f *os.File) ([]byte, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return nil, unix.Madvise(b, unix.MADV_REMOVE)
}

func timesChanged(f *os.File) ([]byte, error) {
	return nil, unix.Futimes(int(f.Fd()), make([]unix.Timeval, 2))
}

func flagsChanged(f *os.File) ([]byte, error) {
	had, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return nil, err
	}
	return nil, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, had|noDump)
}

func extendedFlagsChanged(f *os.File) ([]byte, error) {
	var flags [7]uint32 // struct fsxattr
	for _, command := range []uintptr{getExtendedFlags, setExtendedFlags} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(&flags[0]))); errno != 0 {
			return nil, errno
		}
		flags[0] |= noDumpExtended
	}
	return nil, nil
}

// attempts of a race: each takes some milliseconds on an emulated processor.
const attempts = 200

// raced reads the object again and again while around goes on in another thread until it is told to end.
func raced(around func(dir, target string, end *atomic.Bool)) func(dir, target string) (attempt, error) {
	return func(dir, target string) (attempt, error) {
		return func() ([]byte, error) {
			var end atomic.Bool
			done := make(chan struct{})
			go func() {
				around(dir, target, &end)
				close(done)
			}()
			var got []byte
			var last error
			for range attempts {
				for _, name := range []string{target, "w/mine", "w/x/" + filepath.Base(target)} {
					text, err := os.ReadFile(dir + "/" + name)
					got = append(got, text...)
					last = errors.Join(err)
				}
			}
			end.Store(true)
			<-done
			return got, last
		}, nil
	}
}

// renameAround keeps the lock of renames moving.
func renameAround(dir, _ string, end *atomic.Bool) {
	a, b := dir+"/w/a", dir+"/w/b"
	_ = os.Mkdir(a, 0o777)
	for !end.Load() {
		_, _ = os.Rename(a, b), os.Rename(b, a)
	}
}

func exchangeAround(dir, target string, end *atomic.Bool) {
	for !end.Load() {
		_, _ = swap(dir, target), swap(dir, target)
	}
}

func mountAround(dir, _ string, end *atomic.Bool) {
	y := dir + "/w/y"
	_ = os.Mkdir(y, 0o777)
	for !end.Load() {
		_ = unix.Mount("t", y, "tmpfs", 0, "")
		_ = unix.Unmount(y, unix.MNT_DETACH)
	}
}

func linkAround(dir, target string, end *atomic.Bool) {
	_ = os.Mkdir(dir+"/w/x", 0o777)
	link := dir + "/w/x/" + filepath.Base(target)
	for !end.Load() {
		_, _ = os.Link(dir+"/"+target, link), os.Remove(link)
	}
}
