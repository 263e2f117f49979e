// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the files that are made here are loaded: the code, and what it reads and writes. Both below 4 GiB, for 32 bits.
const (
	codeAt = 0x400000
	dataAt = 0x401000
)

// Registers that `mov REGISTER, imm32` loads, by its opcode: as a call of 32 bits takes them.
const (
	eax = 0xb8 + iota
	ecx
	edx
	ebx
)

// Calls of 32 bits.
const (
	exit32     = 1
	read32     = 3
	write32    = 4
	open32     = 5
	mkdir32    = 39
	truncate32 = 92
)

// load sets registers, given as pairs; the code is the same for programs of 32 and of 64 bits.
func load(pairs ...uint32) []byte {
	var code []byte
	for pair := range slices.Chunk(pairs, 2) {
		code = binary.LittleEndian.AppendUint32(append(code, byte(pair[0])), pair[1])
	}
	return code
}

// interrupt enters the kernel as programs of 32 bits do, with these registers.
func interrupt(pairs ...uint32) []byte { return append(load(pairs...), 0xcd, 0x80) }

// readBy32 opens what is named at dataAt, and writes what it holds to descriptor 1.
func readBy32() []byte {
	const buffer = dataAt + 0x800
	return slices.Concat(
		interrupt(eax, open32, ebx, dataAt, ecx, 0, edx, 0),
		[]byte{0x89, 0xc3}, // mov ebx, eax
		interrupt(eax, read32, ecx, buffer, edx, room),
		[]byte{0x89, 0xc2}, // mov edx, eax
		interrupt(eax, write32, ebx, 1, ecx, buffer),
		interrupt(eax, exit32, ebx, 0),
	)
}

func truncateBy32() []byte {
	return append(interrupt(eax, truncate32, ebx, dataAt, ecx, 3), interrupt(eax, exit32, ebx, 0)...)
}

func mkdirBy32() []byte {
	return append(interrupt(eax, mkdir32, ebx, dataAt, ecx, 0o777), interrupt(eax, exit32, ebx, 0)...)
}

// loaded is where a program's code and data are in its file, and in memory.
func loaded(code, data []byte) (text []byte, codeOffset, dataOffset uint32) {
	const codeOff, dataOff = page, 2 * page
	text = make([]byte, 3*page)
	copy(text[codeOff:], code)
	copy(text[dataOff:], data)
	return text, codeOff, dataOff
}

// program32 is an executable of 32 bits.
func program32(code, data []byte) []byte {
	text, codeOff, dataOff := loaded(code, data)
	header := elf.Header32{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT), Entry: codeAt,
		Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 2,
	}
	part := func(offset, at uint32, flags elf.ProgFlag) elf.Prog32 {
		return elf.Prog32{Type: uint32(elf.PT_LOAD), Off: offset, Vaddr: at, Paddr: at, Filesz: page, Memsz: page, Flags: uint32(flags), Align: page}
	}
	begin(text, header, part(codeOff, codeAt, elf.PF_R|elf.PF_X), part(dataOff, dataAt, elf.PF_R|elf.PF_W))
	return text
}

// program64 is one of 64 bits.
func program64(code, data []byte) []byte {
	text, codeOff, dataOff := loaded(code, data)
	begin(text, header64(elf.ET_EXEC, codeAt, 2), part64(codeOff, codeAt, elf.PF_R|elf.PF_X), part64(dataOff, dataAt, elf.PF_R|elf.PF_W))
	return text
}

func header64(kind elf.Type, entry uint64, parts uint16) elf.Header64 {
	return elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(kind), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Entry: entry,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: parts,
	}
}

func part64(offset uint32, at uint64, flags elf.ProgFlag) elf.Prog64 {
	return elf.Prog64{Type: uint32(elf.PT_LOAD), Off: uint64(offset), Vaddr: at, Paddr: at, Filesz: page, Memsz: page, Flags: uint32(flags), Align: page}
}

// begin writes headers to where a file begins.
func begin(text []byte, headers ...any) {
	var b bytes.Buffer
	for _, h := range headers {
		_ = binary.Write(&b, binary.LittleEndian, h) // a buffer takes everything
	}
	copy(text, b.Bytes())
}

// byProgram runs a program that is made of the code and the object's path.
func byProgram(format func(code, data []byte) []byte, code []byte) func(dir, target string) (attempt, error) {
	return func(dir, target string) (attempt, error) {
		name := dir + "/w/made"
		err := os.WriteFile(name, format(code, []byte(dir+"/"+target+"\x00")), 0o755)
		return func() ([]byte, error) { return exec.Command(name).Output() }, err
	}
}

func madeBy32(dir, target string) (attempt, error) {
	run, err := byProgram(program32, mkdirBy32())(dir, target)
	return func() ([]byte, error) {
		if _, err := run(); err != nil {
			return nil, err
		}
		_, err := os.Lstat(dir + "/" + target)
		return reached(err)
	}, err
}

// readBy64 is readBy32 with the calls of 64 bits, for code that lies anywhere: the path and the buffer are a page behind it.
func readBy64() []byte {
	const rdi, rsi = 0x3d, 0x35 // of `lea REGISTER, [rip+distance]`
	var code []byte
	lea := func(register byte, at int) {
		code = append(code, 0x48, 0x8d, register)
		code = binary.LittleEndian.AppendUint32(code, uint32(page+at-len(code)-4))
	}
	lea(rdi, 0)
	code = append(code, openRead()...)
	lea(rsi, 0x800)
	code = append(code, readWrite()...)
	return code
}

// readAt is that with the path and the buffer at these addresses.
func readAt(path, buffer uint64) []byte {
	address := func(opcodes []byte, at uint64) []byte { return binary.LittleEndian.AppendUint64(opcodes, at) }
	return slices.Concat(address([]byte{0x48, 0xbf}, path), openRead(), address([]byte{0x48, 0xbe}, buffer), readWrite())
}

func call64(number uint32) []byte { return append(load(eax, number), 0x0f, 0x05) }

// openRead opens what rdi points to, and leaves the descriptor in edi.
func openRead() []byte {
	return slices.Concat([]byte{0x31, 0xf6, 0x31, 0xd2}, call64(unix.SYS_OPEN), []byte{0x89, 0xc7}) // esi and edx are 0
}

// readWrite reads from edi to where rsi points, writes as much to descriptor 1, and exits.
func readWrite() []byte {
	return slices.Concat(
		load(edx, room), call64(unix.SYS_READ), []byte{0x89, 0xc2}, // edx: how much
		[]byte{0xbf, 1, 0, 0, 0}, call64(unix.SYS_WRITE), // edi: 1
		[]byte{0x31, 0xff}, call64(unix.SYS_EXIT_GROUP),
	)
}

// library is a shared object whose initialisation is the code.
func library(code, data []byte) []byte {
	const dynamic = 0xc00 // in the page of data
	text, codeOff, dataOff := loaded(code, data)
	list := []elf.Dyn64{
		{Tag: int64(elf.DT_INIT), Val: uint64(codeOff)},
		{Tag: int64(elf.DT_STRTAB), Val: uint64(dataOff) + 0xfff},
		{Tag: int64(elf.DT_SYMTAB), Val: uint64(dataOff) + 0xe00},
		{Tag: int64(elf.DT_STRSZ), Val: 1},
		{Tag: int64(elf.DT_SYMENT), Val: 24},
		{Tag: int64(elf.DT_NULL)},
	}
	begin(text[dataOff+dynamic:], list)
	table := elf.Prog64{
		Type: uint32(elf.PT_DYNAMIC), Off: uint64(dataOff) + dynamic, Vaddr: uint64(dataOff) + dynamic, Filesz: uint64(16 * len(list)),
		Memsz: uint64(16 * len(list)), Flags: uint32(elf.PF_R | elf.PF_W), Align: 8,
	}
	stack := elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)} // without, it is to be executable
	begin(text, header64(elf.ET_DYN, 0, 4), part64(codeOff, uint64(codeOff), elf.PF_R|elf.PF_X),
		part64(dataOff, uint64(dataOff), elf.PF_R|elf.PF_W), table, stack)
	return text
}

// preloaded has the allowed program load a library that reads the file.
func preloaded(dir, target string) (attempt, error) {
	name := dir + "/w/made.so"
	err := os.WriteFile(name, library(readBy64(), []byte(dir+"/"+target+"\x00")), 0o755)
	return func() ([]byte, error) {
		c := exec.Command(dir+"/bin/updater", "/dev/null")
		c.Env = []string{"LD_PRELOAD=" + name}
		return c.CombinedOutput()
	}, err
}

// traced puts the code that reads the file into the allowed program, where that waits for its input.
func traced(dir, target string) (attempt, error) {
	c := exec.Command(dir + "/bin/updater")
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	err = c.Start()
	return func() ([]byte, error) {
		defer func() { _, _, _ = in.Close(), c.Process.Kill(), c.Wait() }()
		if err := injected(c.Process.Pid, []byte(dir+"/"+target+"\x00")); err != nil {
			return nil, err
		}
		return io.ReadAll(out)
	}, err
}

// stopped waits for the stop that attaching asks for. Another one may come first, of a program that has only just begun.
func stopped(pid int) error {
	if err := unix.PtraceAttach(pid); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			return err
		}
		if !status.Stopped() {
			return errNothing
		}
		if status.StopSignal() == unix.SIGSTOP {
			return nil
		}
		if err := unix.PtraceCont(pid, 0); err != nil {
			return err
		}
	}
}

// injected writes code over what the process would do next, and the path to its stack.
func injected(pid int, path []byte) error {
	runtime.LockOSThread() // a process has one tracer, which is a thread
	defer runtime.UnlockOSThread()
	if err := stopped(pid); err != nil {
		return err
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	at := uintptr(regs.Rsp) - 1024 // below all that is in use, where the stack has been before
	code := readAt(uint64(at), uint64(at)+512)
	_, err1 := unix.PtracePokeData(pid, at, append(path, make([]byte, 8)...))
	_, err2 := unix.PtracePokeText(pid, uintptr(regs.Rip), code)
	regs.Orig_rax = ^uint64(0) // the call that it waits in is not begun anew
	err3 := unix.PtraceSetRegs(pid, &regs)
	return errors.Join(err1, err2, err3, unix.PtraceDetach(pid))
}

// Of linux/userfaultfd.h.
const (
	faultAPI      = 0xc018aa3f
	faultRegister = 0xc020aa00
	faultCopy     = 0xc028aa03
	faultVersion  = 0xaa
	faultMissing  = 1
	faultMessage  = 32
)

func control(fd int, command uintptr, argument []uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), command, uintptr(unsafe.Pointer(&argument[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// lateName opens a name whose end comes only when the kernel reads it: what the name leads to is exchanged by then.
func lateName(dir, target string) (attempt, error) {
	b, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	link := dir + "/w/late"
	if err := os.Symlink(dir+"/w/mine", link); err != nil {
		return nil, err
	}
	begins := page - len(link) // what ends it is on the second page
	copy(b[begins:], link)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	second := uint64(uintptr(unsafe.Pointer(&b[page])))
	err = errors.Join(control(int(fd), faultAPI, []uint64{faultVersion, 0, 0}),
		control(int(fd), faultRegister, []uint64{second, page, faultMissing, 0}))
	return func() ([]byte, error) {
		changed := make(chan error, 1)
		go func() {
			_, err := unix.Read(int(fd), make([]byte, faultMessage))
			end := make([]byte, page)
			err = errors.Join(err, os.Remove(link), os.Symlink(dir+"/"+target, link),
				control(int(fd), faultCopy, []uint64{second, uint64(uintptr(unsafe.Pointer(&end[0]))), page, 0, 0}))
			changed <- err
		}()
		at, _, errno := unix.Syscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&b[begins])), unix.O_RDONLY, 0, 0, 0)
		if err := <-changed; err != nil {
			return nil, err
		}
		if errno != 0 {
			return nil, errno
		}
		return contents(int(at), nil)
	}, err
}
