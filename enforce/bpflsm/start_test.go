// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// flip executes exe with one argument, which another thread keeps changing into other and back.
func flip(exe, one, other string) error {
	path, err := unix.BytePtrFromString(exe)
	if err != nil {
		return err
	}
	env, err := unix.BytePtrFromString(probeVariable + "=arguments " + one)
	if err != nil {
		return err
	}
	argument := append([]byte(one), 0)
	argv := []*byte{path, &argument[0], nil}
	envv := []*byte{env, nil}
	go func() {
		for at := 0; ; at++ {
			copy(argument, [2]string{one, other}[at%2])
		}
	}()
	runtime.LockOSThread()
	for range 64 { // the other thread is at work
		runtime.Gosched()
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])))
	return errno
}

func mapFile(path string, protection, later int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, protection, unix.MAP_PRIVATE)
	if err != nil || later == 0 {
		return err
	}
	return unix.Mprotect(m, later)
}

func withArgs(r enforce.Rule, args ...string) enforce.Rule {
	r.Rule.HasArgs, r.Rule.AllowedArgs = true, args
	return r
}

func blockRun(path string, sources ...string) enforce.Rule {
	return rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, path, sources...)
}

func TestArguments(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	tool, free := copySelf(t, d+"/tool"), copySelf(t, d+"/free")
	write(t, d+"/script", "#!"+tool+" -x\n", 0o755)
	write(t, d+"/odd", "#! \t"+tool+" -x y  ", 0o755)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		withArgs(blockRun(tool), "-m", "random", "", "-x", d+"/script", "-x y  "))})
	long := strings.Repeat("l", 5000)
	want(t, try(t, "args "+tool+" -m random", "args "+tool+" random random", "args "+tool, "args "+free+" -m pydoc",
		"args "+tool+" -m pydoc", "args "+tool+" -m random extra", "args "+tool+" "+long, "args "+tool+strings.Repeat(" -m", 600)),
		"ok", "ok", "ok", "ok", "EACCES", "EACCES", "EACCES", "EACCES")
	if got := g.seen(t); len(got) != 4 || got[0] != "exec "+tool+" denied by p00000" {
		t.Errorf("events %q", got)
	}
	// The interpreter is given what stands in the script's first line, the script's name and its arguments.
	want(t, try(t, "args "+d+"/script -m", "args "+d+"/script extra", "args "+d+"/odd -m"), "ok", "EACCES", "EACCES")
	g.seen(t)

	shell := copySelf(t, d+"/shell")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock,
		withArgs(rule(policies.ClassProcess, policies.ActionAllow, policies.ObjectPath, tool, shell), "status"))})
	want(t, tryAs(t, shell, "args "+tool+" status", "args "+tool, "args "+tool+" delete", "args "+free+" status"), "ok", "ok", "EACCES", "EACCES")
	want(t, g.seen(t), "exec "+tool+" denied by posture", "exec "+free+" denied by posture")
	audit := withArgs(rule(policies.ClassProcess, policies.ActionAudit, policies.ObjectPath, tool), "status")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock, audit)})
	want(t, try(t, "args "+tool+" status", "args "+tool+" delete"), "ok", "ok")
	want(t, g.seen(t), "exec "+tool+" audited-by p00000")
}

// TestArgumentsThatChange starts a program whose argument is changed by another thread: it is refused, killed, or
// gets the argument that was judged.
func TestArgumentsThatChange(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	tool := copySelf(t, d+"/tool")
	outcomes := map[string]int{}
	run := func() {
		c := exec.CommandContext(t.Context(), "/proc/self/exe")
		c.Env = []string{probeVariable + "=flip " + tool + " good evil"}
		out, err := c.Output()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
			outcomes["killed"]++
		case err != nil:
			t.Fatal(err)
		default:
			outcomes[strings.TrimSpace(string(out))]++
		}
	}
	for range 30 { // without a rule the changed argument arrives
		run()
	}
	if outcomes["ok"] == 30 || outcomes["killed"]+outcomes["EACCES"] != 0 {
		t.Errorf("without a rule: %v", outcomes)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, withArgs(blockRun(tool), "good"))})
	clear(outcomes)
	for range 200 {
		run()
		if outcomes["killed"] > 2 && outcomes["ok"] > 2 && outcomes["EACCES"] > 2 {
			break
		}
	}
	t.Logf("with a rule: %v", outcomes)
	if outcomes["killed"] == 0 || outcomes["ok"] == 0 || outcomes["EACCES"] == 0 || len(outcomes) != 3 {
		t.Errorf("with a rule: %v", outcomes)
	}
	events := g.taken(t)
	killed := 0
	for _, e := range events {
		if e.Hook == "BPRM_COMMITTING_CREDS" && e.Verdict == enforce.Deny && e.Resource == tool && e.Rule.Policy.Name == "p00000" {
			killed++
		}
	}
	if killed != outcomes["killed"] || len(events) != killed+outcomes["EACCES"] {
		t.Errorf("%d events, %d of them of killed processes; %v", len(events), killed, outcomes)
	}
}

// loaderOf is the ELF interpreter that a dynamic program names.
func loaderOf(t *testing.T, program string) string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := f.Section(".interp")
	if s == nil {
		t.Fatalf("%s is not dynamic", program)
	}
	name, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(name, "\x00"))
}

func copyFile(t *testing.T, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data), 0o755)
	return to
}

func TestLoader(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	const sample = "/usr/bin/env"
	loader := loaderOf(t, sample)
	g := newGuard(t)
	d := t.TempDir()
	bad, good, other := copyFile(t, sample, d+"/bad"), copyFile(t, sample, d+"/good"), copyFile(t, sample, d+"/dir/other")
	copyFile(t, sample, d+"/dir/second")
	shell, static := copySelf(t, d+"/shell"), copySelf(t, d+"/static")
	directory := rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectDirectory, d+"/dir/")
	fromShell := blockRun(good, shell)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, blockRun(bad), directory, fromShell)})
	if err := os.Link(bad, d+"/linked"); err != nil {
		t.Fatal(err)
	}
	want(t, try(t, "exec "+bad, "exec "+good, "exec "+other), "EACCES", "ok", "EACCES")
	g.seen(t)
	want(t, try(t, "exec "+loader+" "+good, "exec "+loader+" "+bad, "exec "+loader+" "+d+"/linked", "exec "+loader+" "+other),
		"ok", "exit status 127", "exit status 127", "exit status 127")
	want(t, g.seen(t), "map "+bad+" denied by p00000", "map "+d+"/linked denied by p00000", "map "+other+" denied by p00001")
	// Who starts the loader is the source, not the loader.
	want(t, tryAs(t, shell, "exec "+good, "exec "+loader+" "+good), "EACCES", "exit status 127")
	// Mapping the files of a directory is otherwise not running them; the first file of a static program is.
	want(t, tryAs(t, static, "map "+other, "map "+good, "map "+other, "protect "+bad, "map "+bad, "protect "+good), "EACCES", "ok", "ok", "EACCES", "EACCES", "ok")
	interpreted(t, g, d, static)

	list := []enforce.Rule{
		rule(policies.ClassProcess, policies.ActionAllow, policies.ObjectPath, resolved(t, loader), shell),
		rule(policies.ClassProcess, policies.ActionAllow, policies.ObjectPath, good, shell),
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock, list...)})
	want(t, tryAs(t, shell, "exec "+good, "exec "+loader+" "+good, "exec "+loader+" "+bad, "memfd"), "ok", "ok", "exit status 127", "EACCES")
	want(t, try(t, "exec "+loader+" "+bad), "ok")
}

// interpreted runs a program whose ELF interpreter is a blocked program.
func interpreted(t *testing.T, g *guard, d, static string) {
	t.Helper()
	blocked := copyFile(t, static, "/tmp/muster-i")
	t.Cleanup(func() { _ = os.Remove(blocked) })
	trick := copyFile(t, "/usr/bin/env", d+"/trick")
	data, err := os.ReadFile(trick)
	if err != nil {
		t.Fatal(err)
	}
	loader := loaderOf(t, trick)
	if len(blocked) > len(loader) {
		t.Fatalf("%s has no room", loader)
	}
	name := blocked + strings.Repeat("\x00", len(loader)-len(blocked))
	write(t, trick, strings.Replace(string(data), loader, name, 1), 0o755)
	want(t, try(t, "args "+trick), "ok")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, blockRun(blocked))})
	g.seen(t)
	if got := try(t, "args "+trick); got[0] == "ok" {
		t.Errorf("a blocked program was run as an ELF interpreter")
	}
	want(t, g.seen(t), fmt.Sprintf("map %s denied by p00000", blocked))
}

func resolved(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStartUnknown counts what keeps arguments from being known, and starts a script without the memory for it.
func TestStartUnknown(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	tool := copySelf(t, d+"/tool")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, withArgs(blockRun(tool), "a"))})
	want(t, try(t, "args "+tool+strings.Repeat(" a", int(bpf.MusterLimitARGUMENTS)), "args "+tool+strings.Repeat(" a", int(bpf.MusterLimitARGUMENTS)+1)), "ok", "EACCES")
	losses, err := g.Losses()
	if err != nil || losses["arguments"] == 0 {
		t.Errorf("losses %v, %v", losses, err)
	}
}
