// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// kept are the descriptors that a probe holds, by path: fd-open PATH r|w|rw.
var kept = map[string]int{}

// received is the name of the descriptor that came from another process.
const received = "received"

// readings and writings are the ways to use a descriptor. Each gets a scratch directory's file for the other end.
var (
	readings = map[string]func(fd int, other string) error{
		"read":    func(fd int, _ string) error { _, err := unix.Read(fd, make([]byte, 1)); return err },
		"pread":   func(fd int, _ string) error { _, err := unix.Pread(fd, make([]byte, 1), 0); return err },
		"readv":   func(fd int, _ string) error { _, err := unix.Readv(fd, [][]byte{make([]byte, 1)}); return err },
		"preadv2": func(fd int, _ string) error { _, err := unix.Preadv2(fd, [][]byte{make([]byte, 1)}, 0, 0); return err },
		"sendfile": func(fd int, other string) error {
			return with(other, func(to int) error { _, err := unix.Sendfile(to, fd, new(int64), 1); return err })
		},
		"copy-from": func(fd int, other string) error {
			return with(other, func(to int) error { _, err := unix.CopyFileRange(fd, new(int64), to, nil, 1, 0); return err })
		},
		"splice-from": func(fd int, _ string) error { return spliced(fd, -1) },
		"uring-read":  func(fd int, _ string) error { return ringTransfer(ringRead, fd) },
	}
	writings = map[string]func(fd int, other string) error{
		"write":    func(fd int, _ string) error { _, err := unix.Write(fd, []byte("x")); return err },
		"pwrite":   func(fd int, _ string) error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err },
		"writev":   func(fd int, _ string) error { _, err := unix.Writev(fd, [][]byte{[]byte("x")}); return err },
		"pwritev2": func(fd int, _ string) error { _, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, 0); return err },
		"sendfile-to": func(fd int, other string) error {
			return with(other, func(from int) error { _, err := unix.Sendfile(fd, from, new(int64), 1); return err })
		},
		"copy-to": func(fd int, other string) error {
			return with(other, func(from int) error { _, err := unix.CopyFileRange(from, new(int64), fd, nil, 1, 0); return err })
		},
		"splice-to":   func(fd int, _ string) error { return spliced(-1, fd) },
		"uring-write": func(fd int, _ string) error { return ringTransfer(ringWrite, fd) },
		"ftruncate":   func(fd int, _ string) error { return unix.Ftruncate(fd, 1) },
		"fallocate":   func(fd int, _ string) error { return unix.Fallocate(fd, 0, 0, 10) },
		"punch": func(fd int, _ string) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1)
		},
	}
)

// held carries out the operations of a probe on descriptors: fd-open PATH MODE, fd-USE PATH OTHER, and those that
// hand one to another program: inherit PATH EXE USE OTHER, send PATH EXE USE OTHER.
func held(f []string) (known bool, err error) {
	switch f[0] {
	case "fd-open":
		kept[f[1]], err = unix.Open(f[1], map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR}[f[2]], 0)
		return true, err
	case "fd-keep":
		return true, keepDescriptor(f[1], f[2])
	case "fd-list":
		_, err = unix.Getdents(kept[f[1]], make([]byte, 4096))
		return true, err
	case "inherit":
		return true, handOn(f[1], f[2], "fd-"+f[3]+" "+received+" "+f[4], false)
	case "send":
		return true, handOn(f[1], f[2], "fd-"+f[3]+" "+received+" "+f[4], true)
	case "fd-take": // the descriptor that was inherited
		kept[received] = 3
		return true, nil
	case "fd-receive":
		return true, receive()
	case "become": // another user
		return true, syscall.Setreuid(1001, 1001)
	}
	use, ok := strings.CutPrefix(f[0], "fd-")
	for _, uses := range []map[string]func(int, string) error{readings, writings} {
		if ok && uses[use] != nil {
			return true, uses[use](kept[f[1]], f[2])
		}
	}
	return false, nil
}

func with(path string, use func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return unprepared("the other file", err)
	}
	return errors.Join(use(fd), unix.Close(fd))
}

// spliced moves a byte from a file into a pipe, or out of one into a file.
func spliced(from, to int) error {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return err
	}
	var err error
	if from >= 0 {
		_, err = unix.Splice(from, new(int64), p[1], nil, 1, 0)
	} else if _, err = unix.Write(p[1], []byte("x")); err == nil {
		_, err = unix.Splice(p[0], nil, to, new(int64), 1, 0)
	}
	return errors.Join(err, unix.Close(p[0]), unix.Close(p[1]))
}

// handOn runs a probe by another executable that gets an open file, by inheritance or in a message.
func handOn(path, exe, use string, message bool) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return unprepared("opening", err)
	}
	defer file.Close()
	given, take := file, "fd-take"
	if message {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
			return err
		}
		given, take = os.NewFile(uintptr(pair[1]), "socket"), "fd-receive"
		defer given.Close()
	}
	c := exec.Command(exe)
	c.Env = []string{probeVariable + "=" + take + "\n" + use}
	c.ExtraFiles = []*os.File{given}
	out, err := c.Output()
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		if line != "ok" {
			return errors.New(line)
		}
	}
	return nil
}

var errNotReceived = errors.New("no descriptor arrived")

func receive() error {
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return errors.Join(errNotReceived, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return errors.Join(errNotReceived, err)
	}
	kept[received] = fds[0]
	return nil
}

// after starts a probe, lets it do some operations, changes the world, and lets it do the rest. It answers what the
// rest gave.
func after(t *testing.T, before []string, change func(), rest ...string) []string {
	t.Helper()
	script := slices.Concat(before, []string{"wait"}, rest)
	c, in, lines := startChild(t, strings.Join(script, "\n"))
	for range before[1:] {
		lines.Scan()
	}
	change()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for lines.Scan() {
		if text := lines.Text(); text != "go" {
			got = append(got, text)
		}
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	return got
}

// TestHeldDescriptors uses descriptors that were opened before the policy, in every way, beside those of a file that
// no rule names.
func TestHeldDescriptors(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	for _, name := range []string{"/secret", "/free", "/other", "/dir/f", "/open/f"} {
		write(t, d+name, "0123456789", 0o666)
	}
	directory := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/dir/")
	readOnly := block(d + "/secret")
	readOnly.Rule.ReadOnly = true
	for _, c := range []struct {
		name           string
		rule           enforce.Rule
		reads, changes string
	}{{"block", block(d + "/secret"), "EACCES", "EACCES"}, {"read-only", readOnly, "ok", "EACCES"}} {
		var operations, expected []string
		for _, file := range []string{"/secret", "/free"} {
			for use := range readings {
				operations = append(operations, "fd-"+use+" "+d+file+" "+d+"/other")
				expected = append(expected, map[string]string{"/secret": c.reads, "/free": "ok"}[file])
			}
			for use := range writings {
				operations = append(operations, "fd-"+use+" "+d+file+" "+d+"/other")
				expected = append(expected, map[string]string{"/secret": c.changes, "/free": "ok"}[file])
			}
		}
		operations = append(operations, "fd-list "+d+"/dir", "fd-list "+d+"/open")
		expected = append(expected, "EACCES", "ok")
		before := []string{"fd-open " + d + "/secret rw", "fd-open " + d + "/free rw", "fd-open " + d + "/dir r", "fd-open " + d + "/open r"}
		got := after(t, before, func() {
			g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, c.rule, directory)})
		}, operations...)
		if len(got) != len(expected) {
			t.Fatalf("%d answers to %d operations: %q", len(got), len(expected), got)
		}
		for i, o := range operations {
			if got[i] != expected[i] {
				t.Errorf("under %s, %s: %s, want %s", c.name, o, got[i], expected[i])
			}
		}
		for _, line := range g.seen(t) {
			if !strings.Contains(line, "denied by p0000") {
				t.Error(line)
			}
		}
		g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	}
}

// TestGivenDescriptors hands an open file to a program that may not have it, by inheritance and in a message.
func TestGivenDescriptors(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/secret", "0123456789", 0o666)
	write(t, d+"/other", "0123456789", 0o666)
	jailed, free := copySelf(t, d+"/jailed"), copySelf(t, d+"/free")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/secret", jailed))})
	for _, way := range []string{"inherit", "send"} {
		for _, use := range []string{"read", "write", "ftruncate"} {
			rest := " " + use + " " + d + "/other"
			want(t, try(t, way+" "+d+"/secret "+free+rest, way+" "+d+"/other "+jailed+rest), "ok", "ok")
			want(t, g.seen(t))
			got := try(t, way+" "+d+"/secret "+jailed+rest)[0]
			if way == "send" && got != errNotReceived.Error() || way == "inherit" && got != "EACCES" {
				t.Errorf("%s%s: %s", way, rest, got)
			}
			if lines := g.seen(t); len(lines) != 1 || !strings.HasSuffix(lines[0], d+"/secret denied by p00000") {
				t.Errorf("%s%s: events %q", way, rest, lines)
			}
		}
	}
}

// TestOwnDescriptors uses what a program opened itself under the ruleset: it is not judged a second time, although
// the program has given up its rights meanwhile, and an audited file is told of once.
func TestOwnDescriptors(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := publicDir(t)
	write(t, d+"/key", "0123456789", 0o666)
	write(t, d+"/audited", "0123456789", 0o666)
	owner := block(d + "/key")
	owner.Rule.OwnerOnly = true
	audited := rule(policies.ClassFile, policies.ActionAudit, policies.ObjectPath, d+"/audited")
	publish := func() {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, owner, audited)})
	}
	use := []string{
		"fd-open " + d + "/key rw", "fd-open " + d + "/audited rw", "become", "fd-read " + d + "/key x", "fd-write " + d + "/key x",
		"fd-read " + d + "/audited x", "fd-write " + d + "/audited x", "fd-read " + d + "/audited x", "read " + d + "/key",
	}
	expected := []string{"ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "EACCES"}
	told := []string{"open " + d + "/audited audited-by p00001", "open " + d + "/key denied by p00000"}
	// By a program that is older than the ruleset, and by one that is younger.
	want(t, after(t, []string{"stat /"}, publish, use...), expected...)
	want(t, g.seen(t), told...)
	want(t, try(t, use...), expected...)
	want(t, g.seen(t), told...)
	// The same descriptors, older than the ruleset: whoever is not the owner is denied, and the audited one is told of
	// at its first use.
	again := func() {
		want(t, g.seen(t), told[0])
		publish()
	}
	want(t, after(t, use[:3], again, use[3:8]...), "EACCES", "EACCES", "ok", "ok", "ok")
	want(t, g.seen(t), "read "+d+"/key denied by p00000", "write "+d+"/key denied by p00000",
		"read "+d+"/audited audited-by p00001", "write "+d+"/audited audited-by p00001")
}

// TestHeldAnonymous uses what has no name under an allow-list that names nothing of it.
func TestHeldAnonymous(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	app := copySelf(t, d+"/app")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock,
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/nothing", app))})
	want(t, tryAs(t, app, "nameless", "read "+d+"/app"), "ok", "EACCES")
}

// TestHeldStreams uses a named pipe and a device that were opened before the ruleset: a Block is for them as well, and no
// allow-list has to name them.
func TestHeldStreams(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := publicDir(t)
	app := copySelf(t, d+"/app")
	write(t, d+"/file", "x", 0o666)
	if err := errors.Join(unix.Mknod(d+"/pipe", unix.S_IFIFO|0o666, 0), unix.Mknod(d+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))); err != nil {
		t.Fatal(err)
	}
	open := []string{"fd-open " + d + "/pipe rw", "fd-open " + d + "/zero rw"}
	use := []string{"fd-write " + d + "/pipe x", "fd-read " + d + "/pipe x", "fd-read " + d + "/zero x", "fd-map-private " + d + "/zero"}
	publish := func(posture enforce.Posture, list ...enforce.Rule) func() {
		return func() {
			g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, posture, list...)})
		}
	}
	want(t, after(t, open, publish(enforce.PostureAudit, block(d+"/pipe"), block(d+"/zero")), use...), "EACCES", "EACCES", "EACCES", "EACCES")
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	want(t, after(t, open, publish(enforce.PostureAudit, block(d+"/other")), use...), "ok", "ok", "ok", "ok")
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	publish(enforce.PostureBlock, rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/nothing", app))()
	want(t, try(t, "inherit "+d+"/pipe "+app+" write x", "inherit "+d+"/zero "+app+" read x", "send "+d+"/zero "+app+" read x",
		"inherit "+d+"/file "+app+" read x"), "ok", "ok", "ok", "EACCES")
}

// useNameless writes to and reads from a pipe, a socket and a memfd, by plain calls and by sendfile.
func useNameless() error {
	var p [2]int
	fd, err := unix.MemfdCreate("m", 0)
	pair, err2 := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err := errors.Join(err, err2, unix.Pipe(p[:])); err != nil {
		return err
	}
	conn, err := net.FileConn(os.NewFile(uintptr(pair[0]), "socket"))
	if err != nil {
		return err
	}
	for i, step := range []func() (int, error){
		func() (int, error) { return unix.Write(p[1], []byte("x")) },
		func() (int, error) { return unix.Read(p[0], make([]byte, 1)) },
		func() (int, error) { return unix.Write(fd, []byte("xx")) },
		func() (int, error) { return unix.Pread(fd, make([]byte, 1), 0) },
		func() (int, error) { return unix.Sendfile(pair[1], fd, new(int64), 1) },
		func() (int, error) { return conn.Read(make([]byte, 1)) },
	} {
		if _, err := step(); err != nil {
			return unprepared(fmt.Sprint("step ", i), err)
		}
	}
	return nil
}

// TestReadsOnDemand looks for the program that runs at every read: it is there while a rule is for files, also for an
// agent that adopted what another one attached.
func TestReadsOnDemand(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	d := t.TempDir()
	write(t, d+"/f", "0123456789", 0o666)
	link := g.pins.linkPath(bpf.MusterProgFilePermission)
	files := rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))
	others := rules(enforce.ModeEnforce, enforce.PostureAudit, blockRun(d+"/f"))
	publish := func(b *Backend, rs *enforce.Ruleset, there bool) {
		t.Helper()
		if err := b.Apply(t.Context(), enforce.StepPublish{Ruleset: rs}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(link); (err == nil) != there {
			t.Errorf("the program at every read: %v, want %v", err, there)
		}
		want(t, faults((&guard{Backend: b}).observe(t, rs)))
	}
	publish(g.Backend, others, false)
	publish(g.Backend, files, true)
	publish(g.Backend, others, false)
	next, err := New(Config{Root: testRoot, RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.Apply(t.Context(), enforce.StepAttach{}); err != nil {
		t.Fatal(err)
	}
	got := after(t, []string{"fd-open " + d + "/f rw"}, func() { publish(next, files, true) }, "fd-read "+d+"/f x", "fd-write "+d+"/f x")
	want(t, got, "EACCES", "EACCES")
	// What else hangs on the file rules is there, too; without its pin it is missed, and comes back.
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	successor := &guard{Backend: next} // what the first agent left is not so any more
	want(t, faults(successor.observe(t, files)), "link file_permission missing")
	if err := next.Apply(t.Context(), enforce.StepAttach{}); err != nil {
		t.Fatal(err)
	}
	want(t, faults(successor.observe(t, files)))
	if err := next.Apply(t.Context(), enforce.StepWithdraw{Subject: enforce.Host}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(link); err == nil {
		t.Error("the program at every read is left behind")
	}
}
