// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-fleet/muster/bpf"
)

//go:embed calls.tbl
var callTable string

// callNumber is a system call as a task makes it: its index among the image's calls.
type callNumber struct {
	name  string
	abi   string
	index int
}

// callNumbers are the system calls of x86, in the order of the table.
var callNumbers = sync.OnceValue(func() []callNumber {
	var calls []callNumber
	for line := range strings.Lines(callTable) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] == "#" {
			continue
		}
		n, err := strconv.Atoi(fields[0])
		if err != nil {
			continue // a test reads every line
		}
		if fields[1] == "i386" {
			n += int(bpf.MusterLimitCALLS_I386)
		}
		calls = append(calls, callNumber{fields[2], fields[1], n})
	}
	return calls
})

// callName is the name of the call that an event tells of, and its ABI.
var callNames = sync.OnceValue(func() map[int]callNumber {
	names := map[int]callNumber{}
	for _, c := range callNumbers() {
		names[c.index] = c
	}
	return names
})

// callText names a call as events do, in KubeArmor's words.
func callText(number uint64) (name, data string) {
	x32 := number&uint64(bpf.MusterCallBitCALL_X32) != 0
	c, known := callNames()[int(number&^uint64(bpf.MusterCallBitCALL_X32))]
	if !known {
		c.name = strconv.FormatUint(number, 10)
	}
	data = "syscall=SYS_" + strings.ToUpper(c.name)
	switch {
	case x32:
		data += " abi=x32"
	case c.abi == "i386":
		data += " abi=i386"
	}
	return c.name, data
}

// callPath says where a system call has its first path, by the numbers of the arguments from 1.
type callPath struct {
	path, base uint8
	byName     bool // it makes, moves or removes a name
}

// callPaths are the calls that take a path. Of symlink it is the new name (the target is text), of mount where.
var callPaths = sync.OnceValue(func() map[string]callPath {
	paths := map[string]callPath{}
	add := func(p callPath, names string) {
		for name := range strings.FieldsSeq(names) {
			paths[name] = p
		}
	}
	add(callPath{1, 0, true}, "unlink rmdir mkdir mknod rename link")
	add(callPath{2, 0, true}, "symlink")
	add(callPath{2, 1, true}, "unlinkat mkdirat mknodat renameat renameat2 linkat")
	add(callPath{3, 2, true}, "symlinkat")
	add(callPath{1, 0, false}, `open creat execve stat lstat stat64 lstat64 oldstat oldlstat access chdir chroot chmod chown
		lchown chown32 lchown32 readlink truncate truncate64 statfs statfs64 utime utimes setxattr lsetxattr getxattr lgetxattr
		listxattr llistxattr removexattr lremovexattr umount umount2 pivot_root swapon swapoff acct uselib`)
	add(callPath{2, 0, false}, "mount quotactl inotify_add_watch")
	add(callPath{2, 1, false}, `openat openat2 execveat newfstatat fstatat64 statx faccessat faccessat2 fchmodat fchmodat2 fchownat
		readlinkat futimesat utimensat utimensat_time64 setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr
		name_to_handle_at open_tree open_tree_attr move_mount fspick mount_setattr`)
	add(callPath{5, 4, false}, "fanotify_mark")
	return paths
})

// pathOf is callPaths for one ABI: i386 has two registers for fanotify_mark's mask.
func (c *callNumber) pathOf() callPath {
	p := callPaths()[c.name]
	if c.name == "fanotify_mark" && c.abi == "i386" {
		p.path, p.base = p.path+1, p.base+1
	}
	return p
}

// callFlags are what the kernel side has to know of some calls.
func (c *callNumber) callFlags() bpf.MusterCallFlag {
	switch c.name {
	case "exit", "exit_group", "sigreturn", "rt_sigreturn":
		return bpf.MusterCallFlagCALL_NO_RETURN
	case "execve", "execveat":
		return bpf.MusterCallFlagCALL_EXEC
	case "fork", "vfork", "clone", "clone3":
		return bpf.MusterCallFlagCALL_FORK
	}
	if c.pathOf().byName {
		return bpf.MusterCallFlagCALL_BY_NAME
	}
	return 0
}

// entryPoints are the calls of amd64 whose function in the kernel has another name.
var entryPoints = map[string]string{
	"stat": "newstat", "fstat": "newfstat", "lstat": "newlstat", "uname": "newuname", "umount2": "umount", "sendfile": "sendfile64",
}

// kernelCalls are the names of the system calls that this kernel has.
func kernelCalls() (map[string]bool, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	return callsIn(f)
}

// callsIn reads them off the kernel's symbols. A call that the kernel was built without is a weak symbol there, if
// any. Those of i386 alone are all old: they are there when any is. Where symbols are hidden, nothing is said against
// any call.
func callsIn(symbols io.Reader) (map[string]bool, error) {
	const native, compat = "__x64_sys_", "__ia32_"
	functions, i386 := map[string]bool{}, false
	lines := bufio.NewScanner(symbols)
	for lines.Scan() {
		name := callFunction(lines.Bytes())
		if function, ok := strings.CutPrefix(name, native); ok {
			functions[function] = true
		}
		i386 = i386 || strings.HasPrefix(name, compat)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	known, hidden := map[string]bool{}, len(functions) == 0
	for _, c := range callNumbers() {
		if c.abi == "amd64" {
			known[c.name] = hidden || functions[cmp.Or(entryPoints[c.name], c.name)]
		}
	}
	for _, c := range callNumbers() {
		if _, native := known[c.name]; !native && c.abi == "i386" {
			known[c.name] = hidden || i386
		}
	}
	return known, nil
}

// callFunction is the name in a line "ADDRESS KIND NAME" of a function that may be a system call's, or "".
func callFunction(line []byte) string {
	const at = 16 // behind the address
	if len(line) < at+4 || line[at] != ' ' || line[at+1] != 'T' && line[at+1] != 't' || line[at+3] != '_' {
		return ""
	}
	return string(line[at+3:])
}

// syscalls implements enforce.Syscalls. The kernel is asked once, and only when a policy speaks of system calls.
func (b *Backend) syscalls(name string) (known, path bool) {
	b.callsOnce.Do(func() {
		calls, err := kernelCalls()
		if err != nil {
			b.log.Warn("system calls of this kernel not known: every rule on one is taken", "error", err)
		}
		b.calls = calls
	})
	_, path = callPaths()[name]
	if b.calls == nil {
		return true, path
	}
	return b.calls[name], path
}
