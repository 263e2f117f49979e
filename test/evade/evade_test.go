// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/vm"
)

// Who makes an attempt.
const (
	callerRoot = "root"
	callerUser = "user"
)

// TestInVM tries all on each kernel and writes the table of docs/evasion.md. A run of some (-run TestInVM//TestEvade/WAY) is for
// ways that were mended: it puts its rows in the place of those of the last whole run, and the page says how many are such.
func TestInVM(t *testing.T) {
	share := t.TempDir()
	makeCow(t, share)
	fmt.Fprintln(os.Stderr, "what has been tried is written to "+share+"/*.part meanwhile, and what is wrong to failures")
	t.Cleanup(func() {
		if err := adopt(share); err != nil {
			t.Error(err)
		}
	})
	vm.TestPackage(t, vm.Options{LSM: vm.BPF, Share: share, TestLimit: 100 * time.Minute})
}

// Environment of an attempt's process: the number of the way.
const variable = "MUSTER_EVADE"

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "cat" || filepath.Base(os.Args[0]) == "updater":
		for _, name := range os.Args[1:] {
			text, err := os.ReadFile(name)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Stdout.Write(text)
		}
	case os.Getenv(variable) != "":
		os.Exit(attemptIt())
	default:
		os.Exit(m.Run())
	}
}

// unbegun is what stands before the words of a way that could not begin.
const unbegun = "cannot begin: "

// attemptIt begins the way of this process, says so, and goes on with it when it is told to.
func attemptIt() int {
	var n int
	if _, err := fmt.Sscan(os.Getenv(variable), &n); err != nil {
		return 2
	}
	proceed, err := ways()[n].code(os.Getenv("D"), os.Getenv("T"))
	if err != nil {
		fmt.Println(err)
		return 2
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return 2
	}
	out, err := proceed()
	os.Stdout.Write(out)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestEvade tries every way and writes down what came of each.
func TestEvade(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	if err := os.MkdirAll("/opt", 0o755); err != nil {
		t.Fatal(err)
	}
	e := startEngine(t)
	var found results
	all := 0
	for n, w := range ways() {
		all += len(w.rows())
		t.Run(w.name, func(t *testing.T) {
			found = append(found, e.rows(t, n, w)...)
			if err := found.write("/share", ".part"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%d ways, %s", len(ways()), found.sum())
	suffix := wholeSuffix
	if len(found) < all {
		suffix = againSuffix // -run has chosen some
	}
	if err := found.write("/share", suffix); err != nil {
		t.Error(err)
	}
}

// rows tries one way on each target as every caller: without policies, where it has to succeed, and with them.
func (e *engine) rows(t *testing.T, n int, w way) results {
	t.Helper()
	e.clear(t)
	found := w.rows()
	proven := make([]bool, len(found))
	for i, r := range found {
		found[i].Outcome = outcomeNoControl
		got, out := e.try(t, n, w, r, false)
		if proven[i] = got != ""; !proven[i] {
			tell(t, found[i], "the control fails, so the row proves nothing", out)
		}
	}
	for i, r := range found {
		if proven[i] {
			if w.more != "" {
				e.clear(t) // a disk that is mounted anew has the numbers of the one before, which that attempt's policies know
			}
			got, out := e.try(t, n, w, r, true)
			found[i].Outcome = w.outcome(got, out)
			tell(t, found[i], got, out)
		}
	}
	return found
}

// rows are those of the table that the way is for.
func (w *way) rows() results {
	var list results
	for _, target := range w.targets {
		for _, caller := range w.callers() {
			list = append(list, result{Group: w.group, Way: w.name, Target: target, Caller: caller, Limit: w.limit})
		}
	}
	return list
}

// outcome is what came of an attempt under the policies. One that could not even begin, which it does before they are
// published, shows no more than one without a control.
func (w *way) outcome(got string, out []byte) string {
	switch {
	case bytes.HasPrefix(out, []byte(unbegun)):
		return outcomeNoControl
	case got == "":
		return outcomeHeld
	case w.limit != "":
		return outcomeLimit
	default:
		return outcomeRound
	}
}

func tell(t *testing.T, r result, got string, out []byte) {
	t.Helper()
	label := fmt.Sprintf("%-10s %-55s %-16s %s", r.Outcome, r.Way, r.Target, r.Caller)
	if r.Outcome != outcomeRound && r.Outcome != outcomeNoControl {
		t.Logf("%s: %.120q", label, bytes.TrimSpace(out))
		return
	}
	t.Errorf("%s: %s: %.400q", label, got, bytes.TrimSpace(out))
	if f, err := os.OpenFile("/share/failures", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
		fmt.Fprintf(f, "%s: %s: %.400q\n", label, got, bytes.TrimSpace(out))
		f.Close()
	}
}

func (w *way) callers() []string {
	if w.who == rootOnly {
		return []string{callerRoot}
	}
	return []string{callerRoot, callerUser}
}

// try makes the attempt in a fresh world and answers what was got hold of, and what was said. Worlds have directories of
// their own, so that the policies of the one before, which are in force still, say nothing of the next; whoever makes them is
// the agent, which nothing is denied.
func (e *engine) try(t *testing.T, n int, w way, r result, enforced bool) (got string, out []byte) {
	t.Helper()
	e.worlds++
	dir := fmt.Sprintf("/opt/evade%d", e.worlds)
	world := newWorld(t, dir)
	publish := func() {
		world.was = world.state(t) // a link that the way has made before is no change
		if enforced {
			e.publish(t, dir, w.more)
		}
	}
	uid := 0
	if r.Caller == callerUser {
		uid = user
	}
	out = carryOut(t, n, w, dir, r.Target, uid, publish)
	got = world.gotRound(t, out)
	world.remove(t)
	return got, out
}

// patience is how long an attempt may take on an emulated processor.
const patience = 90 * time.Second

// carryOut runs the way's process and calls publish when it has begun.
func carryOut(t *testing.T, n int, w way, dir, target string, uid int, publish func()) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe")
	if w.sh != "" {
		publish()
		c = exec.CommandContext(ctx, "/bin/sh", "-c", w.sh)
	}
	c.Env = environment(dir, target, uid)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if w.sh != "" {
		out, _ := c.CombinedOutput()
		return out
	}
	c.Env = append(c.Env, fmt.Sprintf("%s=%d", variable, n))
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
	r := bufio.NewReader(out)
	line, _ := r.ReadString('\n')
	if line != "ready\n" {
		_ = c.Wait()
		return []byte(unbegun + line)
	}
	publish()
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	_ = c.Wait() // its answer is what it wrote
	return rest
}

func environment(dir, target string, uid int) []string {
	ns := "unshare"
	if uid != 0 {
		ns = "unshare -Ur"
	}
	self, err := os.Executable()
	if err != nil {
		self = ""
	}
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "D=" + dir, "W=" + dir + "/w", "T=" + target,
		"S=" + filepath.Join(dir, target), "NS=" + ns, "CAT=" + self,
	}
}

// TestWaysAreMany holds the list against what was promised, and against itself.
func TestWaysAreMany(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, w := range ways() {
		if names[w.name] {
			t.Errorf("two ways are called %q", w.name)
		}
		names[w.name] = true
		if (w.sh == "") == (w.code == nil) || len(w.targets) == 0 || strings.ContainsAny(w.name, "|\n") {
			t.Errorf("%q is no way", w.name)
		}
	}
	if len(names) < 60 {
		t.Errorf("only %d ways", len(names))
	}
}
