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

func TestInVM(t *testing.T) { vm.TestPackage(t, vm.Options{LSM: vm.BPF, TestLimit: time.Hour}) }

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

// attemptIt begins the way of this process, says so, and goes on with it when it is told to.
func attemptIt() int {
	var n int
	if _, err := fmt.Sscan(os.Getenv(variable), &n); err != nil {
		return 2
	}
	proceed, err := ways()[n].code(os.Getenv("D"), os.Getenv("T"))
	if err != nil {
		fmt.Println("cannot begin:", err)
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

// TestEvade tries every way; the table of what was held stands in the log.
func TestEvade(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	if err := os.MkdirAll("/opt", 0o755); err != nil {
		t.Fatal(err)
	}
	e := startEngine(t)
	e.clear(t)
	tried, held := 0, 0
	for n, w := range ways() {
		for _, uid := range w.callers() {
			if why := e.control(t, n, w, uid); why != "" {
				t.Errorf("%s, uid %d: the control fails, so the way proves nothing: %s", w.name, uid, why)
				continue
			}
			for _, target := range w.targets {
				tried++
				label := fmt.Sprintf("%-55s %-16s uid %d", w.name, target, uid)
				if got, _ := e.try(t, n, w, target, uid, true); got != "" {
					t.Errorf("GOT ROUND %s: %s", label, got)
					continue
				}
				held++
				t.Logf("held  %s", label)
			}
		}
	}
	t.Logf("%d ways, %d attempts, %d held", len(ways()), tried, held)
}

func (w *way) callers() []int {
	if w.who == rootOnly {
		return []int{0}
	}
	return []int{0, user}
}

// control makes the attempt without policies, where it has to succeed; it answers why it does not.
func (e *engine) control(t *testing.T, n int, w way, uid int) string {
	t.Helper()
	got, out := e.try(t, n, w, w.targets[0], uid, false)
	if got != "" {
		return ""
	}
	return string(bytes.TrimSpace(out)) + " (nothing was got hold of)"
}

// try makes the attempt in a fresh world and answers what was got hold of, and what was said.
func (e *engine) try(t *testing.T, n int, w way, target string, uid int, enforced bool) (got string, out []byte) {
	t.Helper()
	dir := fmt.Sprintf("/opt/evade%d", n)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	world := newWorld(t, dir)
	publish := func() {
		if enforced {
			e.publish(t, dir, w.more)
		}
	}
	out = carryOut(t, n, w, dir, target, uid, publish)
	got = world.gotRound(t, out)
	e.clear(t)
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
		return []byte(line)
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
