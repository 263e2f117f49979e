// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
)

// The test process is the agent, whose own operations are never denied, so that operations are tried by a
// child: this binary again, with the operation in its environment.
const probeVariable = "MUSTER_TEST_PROBE"

func TestMain(m *testing.M) {
	if script := os.Getenv(probeVariable); script != "" {
		runProbe(script)
		return
	}
	os.Exit(m.Run())
}

// runProbe carries out operations, one a line, and prints one error name a line.
func runProbe(script string) {
	for line := range strings.Lines(script) {
		fields := strings.Fields(line)
		if fields[0] == "wait" { // until the parent writes a line
			var b [1]byte
			_, _ = io.ReadFull(os.Stdin, b[:])
			fmt.Println("go")
			continue
		}
		if action := longer[fields[0]]; action != nil {
			action()
			continue
		}
		if fields[0] == "hammer" {
			hammer(func(int) error { return operate([]string{"read", fields[1]}) })
			continue
		}
		if fields[0] == "hammer-two" {
			hammerTwo(fields[1], fields[2:])
			continue
		}
		if fields[0] == "hammer-sockets" {
			hammer(func(int) error { return socketOnce() })
			continue
		}
		if fields[0] == "hammer-names" {
			hammer(func(n int) error { return operate([]string{"create", fields[1] + "/" + strconv.Itoa(n)}) })
			continue
		}
		fmt.Println(errorName(operate(fields)))
	}
}

// longer are the actions that wait for the parent.
var longer = map[string]func(){"hold": hold, "obey": obey, "flow-serve": serve, "flow-hold": holdFlow}

// hammer tries again and again until the parent closes standard input, and prints how often it was let in,
// of how many times.
func hammer(attempt func(n int) error) {
	fmt.Println(hammering(attempt))
}

func hammering(attempt func(n int) error) (let, tried int) {
	fmt.Println("ready")
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for ; !stop.Load(); tried++ {
		if attempt(tried) == nil {
			let++
		}
	}
	return let, tried
}

// unprepared says that an operation could not even be tried: whatever the error, it is not the answer to the operation.
func unprepared(what string, err error) error { return errors.New(what + ": " + err.Error()) }

func errorName(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

func operate(f []string) error {
	switch f[0] {
	case "read":
		return closed(os.OpenFile(f[1], os.O_RDONLY, 0))
	case "write":
		return closed(os.OpenFile(f[1], os.O_WRONLY, 0))
	case "create":
		return closed(os.OpenFile(f[1], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644))
	case "claim":
		return claimed(false)
	case "claim-locked":
		return claimed(true)
	case "truncate":
		return os.Truncate(f[1], 0)
	case "list":
		return closed(os.OpenFile(f[1], os.O_RDONLY|syscall.O_DIRECTORY, 0))
	case "unlink":
		return syscall.Unlink(f[1])
	case "rename":
		return os.Rename(f[1], f[2])
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, f[1], unix.AT_FDCWD, f[2], unix.RENAME_EXCHANGE)
	case "link":
		return os.Link(f[1], f[2])
	case "symlink":
		return os.Symlink(f[1], f[2])
	case "mkdir":
		return os.Mkdir(f[1], 0o755)
	case "rmdir":
		return syscall.Rmdir(f[1])
	case "mknod":
		return syscall.Mknod(f[1], syscall.S_IFIFO|0o644, 0)
	case "chmod":
		return os.Chmod(f[1], 0o600)
	case "chown":
		return os.Chown(f[1], 0, 0)
	case "chroot":
		return errors.Join(syscall.Chroot(f[1]), os.Chdir("/"))
	case "chdir":
		return os.Chdir(f[1])
	case "call": // a raw system call: call NAME DIRECTORY
		return callOn(f[1], f[2])
	case "call-i386", "call-x32": // the number and a path
		return callOther(f)
	case "execute-anonymous":
		return anonymous(f[1])
	case "args": // a probe by another executable that is given arguments: args EXE ARGUMENT...
		c := exec.Command(f[1], f[2:]...)
		c.Env = []string{probeVariable + "=stat /"}
		return c.Run()
	case "arguments": // of this process are nothing but these
		if got := strings.Join(os.Args[1:], " "); got != strings.Join(f[1:], " ") {
			return errors.New(got)
		}
		return nil
	case "flip": // execute a program while another thread changes its argument: flip EXE ONE OTHER
		return flip(f[1], f[2], f[3])
	case "map": // executable
		return mapFile(f[1], unix.PROT_READ|unix.PROT_EXEC, 0)
	case "protect": // executable what is mapped for reading
		return mapFile(f[1], unix.PROT_READ, unix.PROT_READ|unix.PROT_EXEC)
	case "raw": // a socket that needs CAP_NET_RAW
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	case "clock": // set to what it is
		var now unix.Timeval
		if err := unix.Gettimeofday(&now); err != nil {
			return err
		}
		return unix.Settimeofday(&now)
	case "userns":
		return apartAsUser()
	case "map-anonymous":
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	case "stat":
		_, err := os.Stat(f[1])
		return err
	case "exec":
		return exec.Command(f[1], f[2:]...).Run()
	case "memfd":
		return runMemfd()
	case "agent": // attach below a root, block a path, and die without a word: agent ROOT PATH
		return runAgent(f[1], f[2])
	case "run": // a probe by another executable: run EXE OPERATION...
		c := exec.Command(f[1])
		c.Env = []string{probeVariable + "=" + strings.Join(f[2:], " ")}
		out, err := c.Output()
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(out)); got != "ok" {
			return errors.New(got)
		}
		return nil
	}
	if f[0] == "nameless" {
		return useNameless()
	}
	if f[0] == "way" {
		return way(f)
	}
	for _, operate := range []func([]string) (bool, error){held, heldMap, namespaced, selfAct} {
		if known, err := operate(f); known {
			return err
		}
	}
	if f[0] == "live" {
		return live(f)
	}
	return network(f)
}

func closed(f *os.File, err error) error {
	if err == nil {
		err = f.Close()
	}
	return err
}

func runMemfd() error {
	fd, err := unix.MemfdCreate("program", 0)
	if err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, self); err != nil {
		return err
	}
	c := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
	c.Env = []string{probeVariable + "=stat /"}
	return c.Run()
}

func runAgent(root, path string) error {
	b, err := New(Config{Root: root, RingBytes: 1 << 18})
	if err != nil {
		return err
	}
	for _, step := range []enforce.Step{
		enforce.StepAttach{},
		enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(path))},
	} {
		if err := b.Apply(context.Background(), step); err != nil {
			return err
		}
	}
	fmt.Println("attached")
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// try carries out operations in a child and returns what each answered.
func try(t testing.TB, operations ...string) []string {
	t.Helper()
	return tryAs(t, "/proc/self/exe", operations...)
}

// tryAs does so with another executable, a copy of this one.
func tryAs(t testing.TB, exe string, operations ...string) []string {
	t.Helper()
	c := exec.CommandContext(t.Context(), exe)
	c.Env = []string{probeVariable + "=" + strings.Join(operations, "\n")}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("probe %s %q: %v", exe, operations, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// copySelf makes an executable of this binary under another name.
func copySelf(t testing.TB, path string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(self), 0o755)
	return path
}

func write(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// startChild starts this binary with a script and waits until it says that it is ready. It goes on when its standard
// input ends, and says how it went.
func startChild(t *testing.T, script string) (*exec.Cmd, io.Closer, *bufio.Scanner) {
	t.Helper()
	return startCommand(t, script, "/proc/self/exe")
}

// startCommand does so by a command that ends in this binary.
func startCommand(t *testing.T, script string, command ...string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	c.Env = append(os.Environ(), probeVariable+"="+script)
	in, lines := startPiped(t, c)
	lines.Scan() // ready
	return c, in, lines
}

// startPiped starts a process whose standard input and lines of output are the test's.
func startPiped(t *testing.T, c *exec.Cmd) (io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return in, bufio.NewScanner(out)
}
