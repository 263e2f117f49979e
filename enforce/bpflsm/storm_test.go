// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// hammers are processes that try something forbidden as fast as they can, one for each CPU of the lab.
type hammers struct {
	commands []*exec.Cmd
	inputs   []io.Closer
	outputs  []*bufio.Scanner
}

func startHammers(t *testing.T, scripts ...string) *hammers {
	t.Helper()
	h := &hammers{}
	for _, script := range scripts {
		c, in, lines := startChild(t, script)
		h.commands, h.inputs, h.outputs = append(h.commands, c), append(h.inputs, in), append(h.outputs, lines)
	}
	return h
}

// stop ends the hammers and returns how often they were let in, of how many times.
func (h *hammers) stop(t *testing.T) (let, tried uint64) {
	t.Helper()
	for _, in := range h.inputs {
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i, out := range h.outputs {
		var l, n uint64
		out.Scan()
		if _, err := fmt.Sscan(out.Text(), &l, &n); err != nil {
			t.Fatal(err)
		}
		if err := h.commands[i].Wait(); err != nil {
			t.Fatal(err)
		}
		let, tried = let+l, tried+n
	}
	return let, tried
}

// books are what the kernel has counted since the programs were loaded.
type books struct{ offered, folded, lost, numbered uint64 }

func readBooks(t *testing.T, g *guard) books {
	t.Helper()
	counter := func(c bpf.MusterCounter) uint64 {
		n, err := readCounter(g.maps[bpf.MusterMapCounters], c)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var perCPU []uint64
	if err := g.maps[bpf.MusterMapSequences].Lookup(uint32(0), &perCPU); err != nil {
		t.Fatal(err)
	}
	b := books{
		offered: counter(bpf.MusterCounterCOUNT_EVENTS),
		folded:  counter(bpf.MusterCounterCOUNT_FOLDED),
		lost:    counter(bpf.MusterCounterCOUNT_RING_FULL),
	}
	for _, n := range perCPU {
		b.numbered += n
	}
	return b
}

// await waits until the kernel has offered n more events than in the books.
func await(t *testing.T, g *guard, from books, n uint64) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for readBooks(t, g).offered-from.offered < n {
		select {
		case <-t.Context().Done():
			t.Fatal("the storm is over before its time")
		case <-tick.C:
		}
	}
}

// tally is where the events of a storm went.
type tally struct{ tried, told, counted, records, lost uint64 }

// account holds the books against what was tried: offered is told, counted or lost, to the event, and what is
// missing in the sequences is what the ring could not take.
func account(t *testing.T, g *guard, before books, tried uint64, events []enforce.Event) tally {
	t.Helper()
	now := readBooks(t, g)
	sum := tally{tried: tried, lost: now.lost - before.lost}
	for _, e := range events {
		sum.records++
		if e.Sequence == 0 {
			sum.counted += e.Count
			continue
		}
		sum.told++
	}
	offered, folded := now.offered-before.offered, now.folded-before.folded
	if offered != tried || sum.counted != folded || sum.told+sum.counted+sum.lost != offered {
		t.Errorf("offered %d, folded %d: %+v", offered, folded, sum)
	}
	if missing := now.numbered - before.numbered - sum.told; missing != sum.lost {
		t.Errorf("%d missing in the sequences, %d lost", missing, sum.lost)
	}
	t.Logf("%+v", sum)
	return sum
}

// TestStorm denies on both CPUs as fast as they can. Nothing is let in, the events are few, and every one of
// them is accounted for.
func TestStorm(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/f"))})
	before := readBooks(t, g)
	begin := time.Now()
	h := startHammers(t, "hammer "+d+"/f", "hammer "+d+"/f")
	await(t, g, before, 20000)
	let, tried := h.stop(t)
	took := time.Since(begin)
	sum := account(t, g, before, tried, g.taken(t))
	t.Logf("%.0f denials a second", float64(tried)/took.Seconds())
	if let > 0 {
		t.Errorf("%d of %d let in", let, tried)
	}
	if limit := 100 + 40*uint64(took/harvestInterval); sum.records > limit || sum.lost > 0 {
		t.Errorf("%d records in %s, limit %d; %d lost", sum.records, took, limit, sum.lost)
	}
}

// socketOnce asks for a datagram socket, by the bare system call: what is measured is the kernel.
func socketOnce() error {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// residentBytes is the memory of this process that is in RAM.
func residentBytes(t *testing.T) uint64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm") // pages: size resident …, proc(5)
	if err != nil {
		t.Fatal(err)
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * uint64(os.Getpagesize())
}

// TestStormOfSockets denies the cheapest operation there is, on both CPUs: an emulated processor comes nearest to
// 100,000 a second here. The books hold to the event, the agent (this process) keeps its size, and the machine answers.
func TestStormOfSockets(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/f", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassNetwork, policies.ActionBlock, policies.ObjectProtocol, "udp"), block(d+"/f"))})
	before, size := readBooks(t, g), residentBytes(t)
	begin := time.Now()
	h := startHammers(t, "hammer-sockets", "hammer-sockets")
	await(t, g, before, 100_000)
	asked := time.Now()
	want(t, try(t, "read "+d+"/f"), "EACCES")
	answered := time.Since(asked)
	let, tried := h.stop(t)
	took := time.Since(begin)
	grown := int64(residentBytes(t)) - int64(size)
	sum := account(t, g, before, tried+1, g.taken(t))
	t.Logf("%.0f denials a second; another denial took %s; %d kB more resident", float64(tried)/took.Seconds(), answered, grown>>10)
	if let > 0 || sum.lost > 0 {
		t.Errorf("%d of %d let in, %d lost", let, tried, sum.lost)
	}
	if grown > 30<<20 || answered > 10*time.Second {
		t.Errorf("%d bytes more resident, an answer after %s", grown, answered)
	}
}

// TestStormOfNames denies ever new names, which are different things, on both CPUs. While they are told one by
// one and the reader stands still, another rule's first event is told all the same.
func TestStormOfNames(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/p/f", "x", 0o644)
	write(t, d+"/q", "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/p/"), block(d+"/q"))})
	before := readBooks(t, g)
	g.mu.Lock() // the reader's sink waits for it
	h := startHammers(t, "hammer-names "+d+"/p", "hammer-names "+d+"/p")
	await(t, g, before, 10000)
	want(t, try(t, "read "+d+"/q"), "EACCES")
	g.mu.Unlock()
	await(t, g, readBooks(t, g), 5000)
	let, tried := h.stop(t)
	events := g.taken(t)
	sum := account(t, g, before, tried+1, events)
	if let > 0 || sum.lost > 0 {
		t.Errorf("%d let in, %d lost", let, sum.lost)
	}
	if sum.told < 100 || sum.counted < 1000 {
		t.Errorf("names are told while there is room and counted when there is none: %+v", sum)
	}
	other := slices.IndexFunc(events, func(e enforce.Event) bool { return e.Resource == d+"/q" })
	if other < 0 || events[other].Count != 1 || events[other].Sequence == 0 {
		t.Error("another rule's event was not told")
	}
	for _, e := range events {
		if e.Count > 1 && (!e.Various || e.Rule == nil || e.Since.IsZero() || !strings.HasPrefix(e.Resource, d+"/p/")) {
			t.Errorf("%+v", e)
		}
	}
}

// TestFolds tells apart what differs in more than the process and the moment.
func TestFolds(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	write(t, d+"/p/f", "x", 0o644)
	write(t, d+"/p/g", "x", 0o644)
	other := copySelf(t, d+"/other")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/p/"))})
	const times = 50
	same := strings.Repeat("read "+d+"/p/f\n", times)
	try(t, same)
	try(t, "write "+d+"/p/f")
	try(t, "read "+d+"/p/g")
	tryAs(t, other, "read "+d+"/p/f")
	counts := map[string]uint64{}
	for _, e := range g.taken(t) {
		counts[e.Operation+" "+e.Resource+" "+e.Source] += e.Count
	}
	var lines []string
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%s %d", strings.ReplaceAll(what, d, ""), n))
	}
	slices.Sort(lines)
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	expected := []string{fmt.Sprintf("open /p/f %s %d", self, times+1), "open /p/f /other 1", "open /p/g " + self + " 1"}
	slices.Sort(expected)
	want(t, lines, expected...)
}
