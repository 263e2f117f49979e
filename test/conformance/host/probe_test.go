// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/test/vm"
)

func buildPrograms(t *testing.T) Programs {
	t.Helper()
	programs, err := BuildPrograms(t.Context(), "..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return programs
}

// bench is a folder with files that the probe works on, private to one case.
type bench struct {
	dir   string
	probe string
}

func newBench(t *testing.T, probe string, private bool) bench {
	t.Helper()
	b := bench{dir: t.TempDir(), probe: probe}
	mode := func(public os.FileMode) os.FileMode {
		if private {
			return public &^ 0o077
		}
		return public
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(os.WriteFile(b.dir+"/f", []byte("content\n"), mode(0o666)))
	must(os.Mkdir(b.dir+"/d", 0o755))
	must(os.WriteFile(b.dir+"/d/g", []byte("content\n"), mode(0o666)))
	must(os.Chmod(b.dir+"/d", mode(0o777)))
	must(os.Mkdir(b.dir+"/empty", mode(0o777)))
	program, err := os.ReadFile(probe)
	must(err)
	must(os.WriteFile(b.dir+"/tool", program, mode(0o777)))
	must(os.Chmod(b.dir+"/tool", mode(0o777)))
	must(os.Chmod(b.dir+"/f", mode(0o666)))
	for dir := b.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(os.Chmod(dir, 0o755))
	}
	return b
}

// run runs the probe; wrap are words before it.
func (b bench) run(t *testing.T, wrap []string, operation string) (int, string) {
	t.Helper()
	words := append(append(wrap, b.probe), strings.Fields(strings.ReplaceAll(operation, "DIR", b.dir))...)
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), output.String()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test must be root to become another user")
	}
	t.Skip("this test must be root to become another user")
}

// asStranger drops to a user who owns nothing.
var asStranger = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}

// TestProbeFiles: each operation on files works where it is permitted, and is 13 where it is not, for a
// user who has no right to the files.
func TestProbeFiles(t *testing.T) {
	t.Parallel()
	needRoot(t)
	probe := buildPrograms(t).Probe
	for _, op := range []struct {
		operation string
		ok        int // exit status as root
		denied    int // exit status for the stranger
	}{
		{"exec DIR/tool", 0, 13},
		{"exec DIR/tool read DIR/none", 0, 13},
		{"exec-fd DIR/tool", 0, 13},
		{"exec-memfd DIR/tool", 0, 3}, // the copy cannot even be made
		{"unshare-exec DIR/tool", 0, 3},
		{"read DIR/f", 0, 13},
		{"read DIR/none", 4, 4},
		{"read-openat2 DIR/f", 0, 13},
		{"read-io_uring DIR/f", 0, 13},
		{"read-handle DIR/f", 0, 13},
		{"write DIR/f", 0, 13},
		{"append DIR/f", 0, 13},
		{"rdwr-mmap DIR/f", 0, 13},
		{"truncate DIR/f", 0, 13},
		{"ftruncate DIR/f", 0, 13},
		{"create DIR/d/new", 0, 13},
		{"unlink DIR/d/g", 0, 13},
		{"rename DIR/d/g DIR/d/h", 0, 13},
		{"link DIR/d/g DIR/d/h", 0, 13},
		{"symlink DIR/f DIR/d/h", 0, 13},
		{"mkdir DIR/d/new", 0, 13},
		{"rmdir DIR/empty", 0, 13},
		{"mknod DIR/d/new", 0, 13},
		{"chmod DIR/f", 0, 13},
		{"chown DIR/f", 0, 13},
		{"setxattr DIR/f", 0, 13},
		{"list DIR/d", 0, 13},
		{"chdir-read DIR f", 0, 13},
		{"bind-mount-read DIR/f DIR/tool", 0, 3},
		{"unshare-read DIR/f", 0, 3},
		{"userns-read DIR/f", 0, 13},
		{"held-write DIR/f", 3, 3}, // nobody opened it
		{"raed DIR/f", 2, 2},
		{"read DIR/f DIR/f", 2, 2},
	} {
		t.Run(strings.ReplaceAll(op.operation, "/", " "), func(t *testing.T) {
			t.Parallel()
			if code, output := newBench(t, probe, false).run(t, nil, op.operation); code != op.ok {
				t.Errorf("root: exit status %d, want %d: %s", code, op.ok, output)
			}
			if code, output := newBench(t, probe, true).run(t, asStranger, op.operation); code != op.denied {
				t.Errorf("stranger: exit status %d, want %d: %s", code, op.denied, output)
			}
		})
	}
}

// TestProbePrints: a copy called tool only prints; other copies do when they have nothing to do.
func TestProbePrints(t *testing.T) {
	t.Parallel()
	needRoot(t)
	b := newBench(t, buildPrograms(t).Probe, false)
	for _, c := range []struct {
		operation string
		code      int
		output    string
	}{
		{"exec DIR/tool read /etc/no-such-file", 0, "hello\n"},
		{"exec DIR/tool -m random", 0, "hello\n"},
		{"exec DIR/none", 4, "probe: execve: No such file or directory\n"},
	} {
		if code, output := b.run(t, nil, c.operation); code != c.code || output != c.output {
			t.Errorf("%s: %d %q", c.operation, code, output)
		}
	}
	for name, want := range map[string]int{"tool2": 4, "src-a": 4} {
		if err := os.Link(b.dir+"/tool", b.dir+"/"+name); err != nil {
			t.Fatal(err)
		}
		if code, output := b.run(t, nil, "exec DIR/"+name+" read /etc/no-such-file"); code != want {
			t.Errorf("%s with an operation: %d %q", name, code, output)
		}
	}
	if code, output := b.run(t, nil, "exec DIR/tool2 -m pydoc"); code != 0 || output != "hello\n" {
		t.Errorf("tool2 with other arguments: %d %q", code, output)
	}
}

// TestProbeScripts: inside a mount namespace of the test's own, because scripts are written under /opt/t.
func TestProbeScripts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	programs := buildPrograms(t)
	private := []string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /opt && mkdir -p /opt/t/dir && exec "$@"`, "sh"}
	b := newBench(t, programs.Probe, false)
	if code, output := b.run(t, private, "script DIR/tool"); code != 0 || output != "hello\n" {
		t.Errorf("%d %q", code, output)
	}
	if err := os.Chmod(b.dir+"/tool", 0o644); err != nil {
		t.Fatal(err)
	}
	if code, output := b.run(t, private, "script DIR/tool"); code != 13 {
		t.Errorf("%d %q", code, output)
	}
	b.probe = programs.Probe
	if code, output := b.run(t, nil, "exec-loader "+programs.Dyntool); code != 0 || output != "hello\n" {
		t.Errorf("loader: %d %q", code, output)
	}
	copied := b.dir + "/dyntool"
	text, err := os.ReadFile(programs.Dyntool)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, output := b.run(t, asStranger, "exec-loader "+copied); code != 13 {
		t.Errorf("loader, denied: %d %q", code, output)
	}
}

// TestProbeSockets: in a network namespace of its own; the stranger may do what needs no capability.
func TestProbeSockets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	b := newBench(t, buildPrograms(t).Probe, false)
	private := []string{"unshare", "-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}
	for _, op := range []struct {
		operation    string
		root, anyone int
	}{
		{"socket inet stream", 0, 0},
		{"socket inet6 dgram", 0, 0},
		{"socket unix seqpacket", 0, 0},
		{"socket inet raw udp", 0, 13},
		{"socket inet raw 17", 0, 13},
		{"socket packet raw", 0, 13},
		{"socket netlink raw", 0, 0},
		{"socket inet teapot", 2, 2},
		{"unix-stream", 0, 0},
		{"netlink", 0, 0},
		{"bind tcp 8099", 0, 0},
		{"bind udp 99", 0, 13},
		{"listen 8098", 0, 0},
		{"send-udp 127.0.0.1:7", 0, 0},
		{"connect udp 127.0.0.1:7", 0, 0},
		{"connect tcp 127.0.0.1:7", 4, 4}, // nobody listens here
		{"connect tcp nonsense", 2, 2},
	} {
		if code, output := b.run(t, private, op.operation); code != op.root {
			t.Errorf("%s, root: %d %s", op.operation, code, output)
		}
		if code, output := b.run(t, append(private, asStranger...), op.operation); code != op.anyone {
			t.Errorf("%s, anyone: %d %s", op.operation, code, output)
		}
	}
}

// TestProbeCapabilities: each operation works with its capability and is 13 without it and all others.
// What the machine's own kernel lacks is left to the lab (TestProbeInVM).
func TestProbeCapabilities(t *testing.T) {
	t.Parallel()
	needRoot(t)
	b := newBench(t, buildPrograms(t).Probe, false)
	checkCapabilities(t, func(wrap []string, operation string) (int, string) { return b.run(t, wrap, operation) }, false)
}

// untestable capabilities guard nothing that a program can try on these kernels.
var untestable = regexp.MustCompile(`^(mac_admin|mac_override)$`)

func checkCapabilities(t *testing.T, run func(wrap []string, operation string) (int, string), all bool) {
	t.Helper()
	text, err := os.ReadFile("../probe/caps.c")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("../probe/caps_system.c")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\{ ?"([a-z_]+)", CAP_`).FindAllStringSubmatch(string(text)+string(more), -1)
	if len(names) < 39 {
		t.Fatalf("only %d capabilities", len(names))
	}
	private := []string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /opt && mkdir -p /opt/t/dir && exec "$@"`, "sh"}
	for _, match := range names {
		name := match[1]
		if untestable.MatchString(name) {
			continue
		}
		without := append(slices.Clip(private), "setpriv", "--bounding-set=-"+name, "--inh-caps=-"+name)
		code, output := run(private, "cap "+name)
		if code != 0 && !all {
			t.Logf("%s: not to be had on this machine: %d %s", name, code, output)
			continue
		}
		if code != 0 {
			t.Errorf("%s: %d %s", name, code, output)
		}
		if code, output := run(without, "cap "+name); code != 13 {
			t.Errorf("%s, without it: %d %s", name, code, output)
		}
	}
}

// TestProbeInVM tries the capabilities on the lab's kernels, where every one of them can be had.
func TestProbeInVM(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	probe := buildPrograms(t).Probe
	for _, kernel := range vm.Kernels() {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			m := vm.Start(t, vm.Options{Kernel: kernel})
			if err := m.Put(map[string]string{probe: "/run/probe"}); err != nil {
				t.Fatal(err)
			}
			// Debian's 3 asks for CAP_SYS_ADMIN instead of CAP_PERFMON.
			if set, err := m.Run(t.Context(), vm.Sh("echo 2 > /proc/sys/kernel/perf_event_paranoid")); err != nil || set.Code != 0 {
				t.Fatal(err, set.Stderr)
			}
			checkCapabilities(t, func(wrap []string, operation string) (int, string) {
				result, err := m.Run(t.Context(), vm.Command{Args: append(append(wrap, "/run/probe"), strings.Fields(operation)...)})
				if err != nil {
					t.Fatal(err)
				}
				return result.Code, fmt.Sprintf("%s%s", result.Stdout, result.Stderr)
			}, true)
		})
	}
}
