// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
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

// TestClearances lives at random in a small world of files under random rulesets. Every open is made twice as always and
// once with clearances off, and enforce.Decide is asked: all must agree, whatever was renamed, linked, mounted, removed
// or published between one open and the next. Descriptors that are kept over all that are used now and then; use says
// what is to be answered.
func TestClearances(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	for seed := range uint64(clearanceWorlds) {
		t.Run(fmt.Sprint("seed ", seed+1), func(t *testing.T) {
			w := newWorld(t, seed+1)
			for step := range clearanceSteps {
				w.step(step)
				if t.Failed() {
					t.Fatalf("step %d, after %s", step, strings.Join(w.history, "; "))
				}
			}
			t.Logf("%d steps, %d opens, %d of them denied, %d clearances at the end; %d uses of descriptors, %d of them denied, %d judged for the first time under their ruleset",
				clearanceSteps, w.opens, w.denied, w.clearances(), w.uses, w.usesDenied, w.firstUses)
			if w.denied == 0 || w.denied == w.opens || w.clearances() == 0 || w.usesDenied == 0 || w.usesDenied == w.firstUses || w.uses == w.firstUses {
				t.Error("this has shown nothing")
			}
		})
	}
}

// world is some directories with files, and a process that uses them.
type world struct {
	t       *testing.T
	g       *guard
	r       *rand.Rand
	dir     string
	exe     string
	child   *server
	image   *Image
	history []string

	opens, denied int

	publication int // how many different rulesets came into force
	kept        [keptSlots]keptDescriptor

	uses, usesDenied, firstUses int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, g: newGuard(t), r: rand.New(rand.NewPCG(seed, 2)), dir: t.TempDir()}
	w.exe = copySelf(t, w.dir+"/exe")
	w.child = startServer(t, w.exe)
	for _, d := range worldDirs {
		if err := os.MkdirAll(w.dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for w.unmount(unix.MNT_DETACH) {
		}
	})
	w.publish()
	return w
}

var (
	worldDirs  = []string{"/a", "/a/q", "/b", "/b/q", "/m", "/m/q", "/n", "/n/q"}
	worldFiles = []string{"/x", "/y", "/z"}
	mountDirs  = []string{"/m", "/n"}
)

func (w *world) one(list []string) string { return list[w.r.IntN(len(list))] }
func (w *world) someDir() string          { return w.dir + w.one(worldDirs) }
func (w *world) someFile() string         { return w.someDir() + w.one(worldFiles) }

// step does one thing: mostly an open.
func (w *world) step(n int) {
	switch k := w.r.IntN(1000); {
	case n%5000 == 4999:
		w.dropCaches()
	case k < 60:
		w.keep()
	case k < 160:
		w.use()
	case k < 600:
		w.open([]string{"read", "read", "write", "list"}[w.r.IntN(4)])
	case k < 980:
		w.change()
	case k < 990:
		w.mount()
	case k < 997:
		w.unmount(0)
	default:
		w.publish()
	}
}

func (w *world) note(what string) {
	w.history = append(w.history, strings.ReplaceAll(what, w.dir, ""))
	if extra := len(w.history) - 60; extra > 0 {
		w.history = slices.Delete(w.history, 0, extra)
	}
}

// open compares what is answered to one open.
func (w *world) open(how string) {
	path := w.someFile()
	if how == "list" {
		path = w.someDir()
	}
	marks := w.marksOf(path)
	operation := how + " " + path
	first, second := w.child.ask(w.t, operation), w.child.ask(w.t, operation)
	w.allow(false)
	judged := w.child.ask(w.t, operation)
	w.allow(true)
	w.note(operation + " " + judged)
	if first != judged || second != judged {
		w.t.Errorf("%s: %s, then %s, judged %s", operation, first, second, judged)
	}
	if judged != "ok" && judged != "EACCES" {
		return // there is no such file
	}
	w.opens++
	want := w.decide(path, marks, how != "write")
	if (want.Verdict == enforce.Deny) != (judged == "EACCES") {
		w.t.Errorf("%s: %s, to be decided %+v, marks %v\n%s", operation, judged, want, marks, dump(w.image.ruleset))
	}
	if judged == "EACCES" {
		w.denied++
	}
}

// decide is what the rules say of one operation of the process.
func (w *world) decide(path string, marks []string, read bool) enforce.Decision {
	return w.image.ruleset.Decide(enforce.Operation{
		Class: policies.ClassFile, Path: path, Marks: marks, Source: enforce.ProcessSource{Executable: w.exe},
		Owner: true, Read: read,
	})
}

// change changes names, as the agent, which may, or as the other process, which may not always.
func (w *world) change() {
	var operation string
	switch w.r.IntN(9) {
	case 0, 1:
		operation = "rename " + w.someFile() + " " + w.someFile()
	case 2:
		operation = "rename " + w.someDir() + " " + w.someDir()
	case 3:
		operation = "link " + w.someFile() + " " + w.someFile()
	case 4:
		operation = "unlink " + w.someFile()
	case 5:
		operation = "mkdir " + w.someDir()
	case 6:
		operation = "rmdir " + w.someDir()
	default:
		operation = "create " + w.someFile()
	}
	var answer string
	if w.r.IntN(2) == 0 {
		answer = errorName(operate(strings.Fields(operation)))
	} else {
		answer = w.child.ask(w.t, operation)
	}
	w.note(operation + " " + answer)
}

func (w *world) mount() {
	target := w.dir + w.one(mountDirs)
	var err error
	if w.r.IntN(4) == 0 {
		err = unix.Mount("tmpfs", target, "tmpfs", 0, "")
	} else {
		err = unix.Mount(w.someDir(), target, "", unix.MS_BIND, "")
	}
	w.note(fmt.Sprint("mount ", target, " ", err))
}

func (w *world) unmount(flags int) bool {
	done := false
	for _, d := range mountDirs {
		if err := unix.Unmount(w.dir+d, flags); err == nil {
			w.note("unmount " + d)
			done = true
		}
	}
	return done
}

// dropCaches has the kernel give up inodes and dentries: others get their addresses.
func (w *world) dropCaches() {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		w.t.Error(err)
	}
	w.note("drop caches")
}

// publish publishes a new random ruleset, or now and then the same one again.
func (w *world) publish() {
	if w.image == nil || w.r.IntN(4) > 0 {
		var list []enforce.Rule
		for range 1 + w.r.IntN(4) {
			list = append(list, w.rule())
		}
		posture := []enforce.Posture{enforce.PostureAudit, enforce.PostureBlock}[w.r.IntN(2)]
		rs := rules(enforce.ModeEnforce, posture, list...)
		key, err := w.g.key()
		if err != nil {
			w.t.Fatal(err)
		}
		image, err := render(rs, key)
		if err != nil {
			w.t.Fatal(err)
		}
		if w.image == nil || image.ID != w.image.ID {
			w.publication++
		}
		w.image = image
	}
	w.g.apply(w.t, enforce.StepPublish{Ruleset: w.image.ruleset})
	w.note("publish")
}

func (w *world) rule() enforce.Rule {
	var sources []string
	switch w.r.IntN(5) {
	case 0:
		sources = []string{w.exe}
	case 1:
		sources = []string{"/usr/bin/other"}
	}
	action := policies.ActionBlock
	if k := w.r.IntN(10); k < 2 && len(sources) > 0 {
		action = policies.ActionAllow
	} else if k == 9 {
		action = policies.ActionAudit
	}
	switch w.r.IntN(4) {
	case 0:
		r := rule(policies.ClassFile, action, policies.ObjectDirectory, w.someDir()+"/", sources...)
		r.Rule.Object.Recursive = w.r.IntN(2) == 0
		return r
	case 1:
		return rule(policies.ClassFile, action, policies.ObjectPattern, w.dir+"/*"+w.one(worldFiles), sources...)
	default:
		return rule(policies.ClassFile, action, policies.ObjectPath, w.someFile(), sources...)
	}
}

// allow turns clearances off and on again, without ending those that hold.
func (w *world) allow(allow bool) {
	clearing := w.g.maps[bpf.MusterMapClearing]
	var state bpf.MusterClearingState
	if err := clearing.Lookup(uint32(0), &state); err != nil {
		w.t.Fatal(err)
	}
	state.Off = 1
	if allow {
		state.Off = 0
	}
	if err := clearing.Put(uint32(0), &state); err != nil {
		w.t.Fatal(err)
	}
}

// clearances counts the slots in use.
func (w *world) clearances() int {
	n := 0
	var key uint32
	value := make([]byte, 64)
	for all := w.g.maps[bpf.MusterMapClearances].Iterate(); all.Next(&key, &value); {
		if binary.LittleEndian.Uint64(value) != 0 {
			n++
		}
	}
	return n
}

// marksOf are the protected paths that the kernel knows the file by which has this name.
func (w *world) marksOf(path string) []string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil
	}
	var found []string
	known := map[bpf.MusterMarkKey][]string{}
	var key bpf.MusterMarkKey
	var m bpf.MusterMark
	for all := w.g.maps[bpf.MusterMapMarks].Iterate(); all.Next(&key, &m); {
		if key.Inode != st.Ino || key.Device != kernelDevice(st.Dev) {
			continue
		}
		for _, hash := range m.Paths {
			if path := w.image.Protected[hash]; path != "" {
				known[key] = append(known[key], path)
			}
		}
	}
	if len(known) == 0 {
		return nil
	}
	// A filesystem that is gone may have had this number and this device as well; the generation tells, which takes longer.
	err := w.g.identify(w.t.Context(), []string{path}, func(_ string, key bpf.MusterMarkKey) error {
		found = known[key]
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// TestClearancesUnderChange moves a file in and out of a blocked directory in every way, while others open it by both
// names: by the blocked one never with success.
func TestClearancesUnderChange(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/free/f", "x", 0o644)
	for _, dir := range []string{"/blocked", "/mount"} {
		if err := os.MkdirAll(d+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var list []enforce.Rule
	for _, dir := range []string{"/blocked/", "/mount/"} {
		list = append(list, rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+dir))
	}
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	c, in, lines := startChild(t, "hammer-two "+d+"/free/f "+d+"/blocked/f "+d+"/mount/f")
	for round := range clearanceSteps / 20 {
		for _, f := range moves {
			if err := f(d); err != nil {
				t.Fatal(err)
			}
		}
		if round%100 == 0 {
			g.apply(t, enforce.StepPublish{Ruleset: rs})
			g.taken(t)
		}
	}
	in.Close()
	lines.Scan()
	var free, let, refused int
	if _, err := fmt.Sscan(lines.Text(), &free, &let, &refused); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d opens let in by the free name, %d by the blocked ones, %d refused there", free, let, refused)
	if free == 0 || let > 0 || refused == 0 {
		t.Error("not as it must be")
	}
}

// moves leave the file at its free name. A blocked name is never renamed to the free one: who has found the file by the
// first and is judged after that opens it by the second.
var moves = []func(d string) error{
	func(d string) error { return os.Rename(d+"/free/f", d+"/blocked/f") },
	func(d string) error { return os.Link(d+"/blocked/f", d+"/free/f") },
	func(d string) error { return os.Remove(d + "/blocked/f") },
	func(d string) error { return os.Link(d+"/free/f", d+"/blocked/f") },
	func(d string) error { return os.Remove(d + "/free/f") },
	func(d string) error { return os.Link(d+"/blocked/f", d+"/free/f") },
	func(d string) error { return os.Remove(d + "/blocked/f") },
	func(d string) error { return unix.Mount(d+"/free", d+"/mount", "", unix.MS_BIND, "") },
	func(d string) error { return unix.Unmount(d+"/mount", unix.MNT_DETACH) },
	func(d string) error { return os.WriteFile(d+"/other", nil, 0o644) },
	func(d string) error { return os.Link(d+"/free/f", d+"/blocked/f") },
	func(d string) error { return os.Rename(d+"/other", d+"/free/f") },
	func(d string) error { return os.Remove(d + "/free/f") },
	func(d string) error { return os.Link(d+"/blocked/f", d+"/free/f") },
	func(d string) error { return os.Remove(d + "/blocked/f") },
}

// hammerTwo opens a free name and the others in turn until the parent ends standard input.
func hammerTwo(free string, blocked []string) {
	var let, refused int
	count := func(n int) error {
		err := operate([]string{"read", free})
		other := operate([]string{"read", blocked[n%len(blocked)]})
		switch {
		case other == nil:
			let++
		case errors.Is(other, fs.ErrPermission):
			refused++
		}
		return err
	}
	opened, _ := hammering(count)
	fmt.Println(opened, let, refused)
}

// TestClearanceHolds shows that a clearance is what answers: the image is changed behind the engine's back.
func TestClearanceHolds(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	key, err := g.key()
	if err != nil {
		t.Fatal(err)
	}
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/other"))})
	want(t, try(t, "read "+d+"/f"), "ok")
	id := g.last.ID
	forged, err := render(rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f")), key)
	if err != nil {
		t.Fatal(err)
	}
	(*bpf.MusterImageHeader)(unsafe.Pointer(&forged.Bytes[0])).Id = id
	forge := func() {
		if err := publish(g.maps[bpf.MusterMapSlots], innerSpec(g.spec), forged.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	forge()
	want(t, try(t, "read "+d+"/f"), "ok")
	for _, end := range []struct {
		name string
		by   func() error
	}{
		{"rename elsewhere", func() error { write(t, d+"/1", "", 0o644); return os.Rename(d+"/1", d+"/2") }},
		{"mount elsewhere", func() error {
			return errors.Join(unix.Mount(d, d, "", unix.MS_BIND, ""), unix.Unmount(d, unix.MNT_DETACH))
		}},
		{"second link", func() error { return os.Link(d+"/f", d+"/g") }},
		{"the agent's marks", func() error { return g.markExisting(t.Context(), g.last) }},
		{"epoch", func() error { return endClearances(g.maps[bpf.MusterMapClearing]) }},
	} {
		if err := os.Remove(d + "/g"); err != nil && !errors.Is(err, syscall.ENOENT) {
			t.Fatal(err)
		}
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/other"))})
		want(t, try(t, "read "+d+"/f"), "ok")
		forge()
		if err := end.by(); err != nil {
			t.Fatal(err)
		}
		if got := try(t, "read "+d+"/f"); got[0] != "EACCES" {
			t.Errorf("%s: %s", end.name, got)
		}
	}
}
