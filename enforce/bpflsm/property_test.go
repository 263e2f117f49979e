// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

var testKey = hashKey{0x0706050403020100, 0x0f0e0d0c0b0a0908}

// prober runs the kernel's matcher by BPF_PROG_TEST_RUN. It loads one program that is attached nowhere.
type prober struct {
	program *ebpf.Program
	slots   *ebpf.Map
	inner   *ebpf.MapSpec

	decisions, overflown, dryRuns int // overflown: with more lists than an event has room for
}

func newProber(t testing.TB) *prober {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("root is needed to load the matcher")
		}
		t.Skip("root is needed to load the matcher")
	}
	spec := ownPrograms(t)
	var objects struct {
		Program *ebpf.Program `ebpf:"probe_decision"`
		Slots   *ebpf.Map     `ebpf:"slots"`
	}
	inner := innerSpec(spec)
	if err := sizeFor(spec, 1<<12, 2); err != nil {
		t.Fatal(err)
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { objects.Program.Close(); objects.Slots.Close() })
	return &prober{program: objects.Program, slots: objects.Slots, inner: inner}
}

// ownPrograms are those that are made for the running kernel.
func ownPrograms(t testing.TB) *ebpf.CollectionSpec {
	t.Helper()
	h, err := readHost(must(bpf.LoadMuster()))
	if err != nil {
		t.Fatal(err)
	}
	return h.programs.Copy()
}

func (p *prober) decide(t testing.TB, a *attempt) outcome {
	t.Helper()
	var in bpf.MusterProbe
	return p.decideNext(t, a, &in)
}

// decideNext decides on one object of an operation that touches several: in has what the one before has come to.
func (p *prober) decideNext(t testing.TB, a *attempt, in *bpf.MusterProbe) outcome {
	t.Helper()
	path := []byte(a.path + "\x00")
	// The kernel reads by these addresses: not from a stack that grows meanwhile, nor what is collected.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&path[0])
	*in = bpf.MusterProbe{
		Verdict: in.Verdict, Rule: in.Rule, Flags: in.Flags, Audits: in.Audits, Second: in.Second, Unfinished: in.Unfinished,
		Path: uint64(uintptr(unsafe.Pointer(&path[0]))), Length: uint32(len(a.path)), Class: uint32(a.class),
		Sources: a.sources, Chain: a.chain, Marks: a.marks, Names: a.names, Attributes: a.attributes,
	}
	in.Call = a.call
	for i, source := range a.paths {
		text := []byte(source + "\x00")
		in.SourcePaths[i], in.SourceLengths[i] = uint64(uintptr(unsafe.Pointer(&text[0]))), uint32(len(source))
		pin.Pin(&text[0])
	}
	in.Arguments, in.ArgumentCount = uint32(bpf.MusterArgumentsStateARGUMENTS_KNOWN), uint32(copy(in.ArgumentHashes[:], a.args))
	if a.noPath {
		in.Flags = uint32(bpf.MusterEventFlagEVENT_UNBUILDABLE)
	}
	var out bpf.MusterProbe
	answer, err := p.program.Run(&ebpf.RunOptions{Context: in, ContextOut: &out})
	*in = out
	if err != nil || answer != 0 {
		t.Fatalf("matcher: error %d: %v", int32(answer), err)
	}
	o := outcome{verdict: bpf.MusterVerdict(out.Verdict), rule: out.Rule, flags: bpf.MusterEventFlag(out.Flags)}
	for _, list := range out.Audits {
		if list != 0 {
			o.audits = append(o.audits, list)
		}
	}
	return o
}

// attemptOf puts an operation as the kernel would find it.
func attemptOf(op *enforce.Operation, key hashKey) attempt {
	a := attempt{class: slices.Index(classes[:], op.Class), path: op.Path, noPath: op.NoPath, paths: [2]string{op.Source.Executable, op.Source.Script}}
	if op.Flow != nil {
		a.path = op.Flow.Path()
	}
	for _, name := range op.Names {
		if op.Class == policies.ClassSyscalls {
			at := slices.IndexFunc(callNumbers(), func(c callNumber) bool { return c.name == name })
			a.call = uint32(callNumbers()[at].index)
			continue
		}
		if op.Class == policies.ClassDNS {
			a.path = enforce.DomainPath(name)
			continue
		}
		a.names |= 1 << numbers[op.Class][name]
	}
	if op.Class == policies.ClassNetwork && len(op.Names) == 0 {
		a.names = 1 << bpf.MusterProtocolPROTOCOL_OTHER
	}
	hash := func(to []uint64, paths ...string) {
		for i, p := range paths {
			if p != "" {
				to[i] = key.hash(p)
			}
		}
	}
	hash(a.sources[0:], op.Source.Executable, op.Source.Script)
	hash(a.sources[2:4], op.Source.ExecutableMarks...)
	hash(a.sources[4:6], op.Source.ScriptMarks...)
	hash(a.chain[:], op.Source.Chain...)
	hash(a.chain[bpf.MusterLimitMIDDLES:], op.Source.ChainMarks...)
	hash(a.marks[:], op.Marks...)
	for _, arg := range op.Args {
		a.args = append(a.args, key.hash(arg))
	}
	a.attributes = uint32(op.RowIndex())
	return a
}

// decisionOf reads an outcome as the agent reads an event.
func decisionOf(image *Image, o outcome) enforce.Decision {
	d := enforce.Decision{
		Verdict: enforce.Verdict(o.verdict), Rule: int(o.rule) - 1,
		Posture:     o.flags&bpf.MusterEventFlagEVENT_POSTURE != 0,
		WouldDeny:   o.flags&bpf.MusterEventFlagEVENT_WOULD_DENY != 0,
		Unbuildable: o.flags&bpf.MusterEventFlagEVENT_UNBUILDABLE != 0,
	}
	found, err := image.lists(o.audits, o.flags)
	if err != nil {
		panic(err)
	}
	d.Audits, d.DryRuns = found.audits, found.dryRuns
	return d
}

func TestDecisionsAgree(t *testing.T) {
	t.Parallel()
	p := newProber(t)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		rs := randomRuleset(r)
		image, err := render(rs, testKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(p.slots, p.inner, image.Bytes); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			op := randomOperation(r, rs)
			p.agree(t, image, &op)
		}
	}
	p.lopsided(t)
}

// lopsided says what the comparisons were worth.
func (p *prober) lopsided(t *testing.T) {
	t.Helper()
	t.Logf("%d decisions, %d dry runs that would deny, %d with too many lists", p.decisions, p.dryRuns, p.overflown)
	if p.dryRuns*100 < p.decisions || p.overflown*50 > p.decisions {
		t.Errorf("the generator is lopsided")
	}
}

// TestGeneratedDecisionsAgree does the same with the generator that every backend is tested with.
func TestGeneratedDecisionsAgree(t *testing.T) {
	t.Parallel()
	p := newProber(t)
	for seed := range uint64(40) {
		g := enforcetest.NewGenerator(seed)
		rs := g.Ruleset(1 + int(seed))
		image, err := render(rs, testKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(p.slots, p.inner, image.Bytes); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			if op := g.Operation(rs); isEnforced(op.Class) {
				p.agree(t, image, &op)
			}
		}
	}
	p.lopsided(t)
}

// TestTwoObjectsAgree compares decisions on operations with two names, as a rename is one.
func TestTwoObjectsAgree(t *testing.T) {
	t.Parallel()
	p := newProber(t)
	added := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		rs := randomRuleset(r)
		image, err := render(rs, testKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(p.slots, p.inner, image.Bytes); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			old, fresh := randomOperation(r, rs), randomOperation(r, rs)
			fresh.Class, fresh.Source, fresh.Args, fresh.Mapped = old.Class, old.Source, old.Args, old.Mapped
			old.NoPath, fresh.NoPath = false, false
			if one, both := rs.Decide(old), rs.DecideAll(old, fresh); one.Verdict == enforce.Deny && len(both.Audits) > len(one.Audits) {
				added++
			}
			p.agreeOnTwo(t, image, old, fresh)
		}
	}
	p.lopsided(t)
	if added < 100 {
		t.Errorf("%d operations were denied for one object and reported of the other", added)
	}
}

func (p *prober) agreeOnTwo(t *testing.T, image *Image, old, fresh enforce.Operation) {
	t.Helper()
	bound(&old)
	bound(&fresh)
	want := image.ruleset.DecideAll(old, fresh)
	first, second := attemptOf(&old, testKey), attemptOf(&fresh, testKey)
	if len(interpret(image.Bytes, &first).audits)+len(interpret(image.Bytes, &second).audits) > int(bpf.MusterLimitAUDIT_LISTS) {
		p.overflown++ // the kernel counts it: some policy is not told of
		return
	}
	p.decisions++
	p.dryRuns += len(want.DryRuns)
	in := bpf.MusterProbe{Unfinished: 1}
	p.decideNext(t, &first, &in)
	in.Second, in.Unfinished = 1, 0
	got := decisionOf(image, p.decideNext(t, &second, &in))
	if got.Verdict == enforce.Permit && !got.WouldDeny {
		got.Rule = -1 // nobody is told of what permits
	}
	if !equal(want, got) {
		t.Fatalf("%+v\n%+v\n decide %+v\n kernel %+v\n%s", old, fresh, want, got, dump(image.ruleset))
	}
}

// bound leaves no more marks than the kernel keeps, and no scripts in the middle whose directories count: the test entry
// has none.
func bound(op *enforce.Operation) {
	op.Source.ChainMarks = op.Source.ChainMarks[:min(len(op.Source.ChainMarks), int(bpf.MusterLimitCHAIN-bpf.MusterLimitMIDDLES))]
	if op.Class == policies.ClassSyscalls {
		op.Source.Chain, op.Source.ChainMarks = nil, nil
	}
	op.Marks = op.Marks[:min(len(op.Marks), int(bpf.MusterLimitOBJECT_MARKS))]
	for _, marks := range []*[]string{&op.Source.ExecutableMarks, &op.Source.ScriptMarks} {
		*marks = (*marks)[:min(len(*marks), int(bpf.MusterLimitSOURCE_MARKS))]
	}
}

func isEnforced(class policies.Class) bool { return slices.Contains(classes[:], class) }

// agree compares the three decisions of one operation.
func (p *prober) agree(t *testing.T, image *Image, op *enforce.Operation) {
	t.Helper()
	bound(op)
	a := attemptOf(op, testKey)
	want := image.ruleset.Decide(*op)
	interpreted := interpret(image.Bytes, &a)
	inGo, inGoLists := decisionOf(image, interpreted), interpreted.audits
	inKernel := decisionOf(image, p.decide(t, &a))
	if op.NoPath { // audits by mark of an unbuildable path are not looked for
		want.Audits, inGo.Audits, inKernel.Audits = nil, nil, nil
	}
	if len(inGoLists) > int(bpf.MusterLimitAUDIT_LISTS) {
		p.overflown++ // the kernel counts it: some policy is not told of
		return
	}
	p.decisions++
	p.dryRuns += len(want.DryRuns)
	if !equal(want, inGo) || !equal(want, inKernel) {
		t.Fatalf("%+v\n decide %+v\n image  %+v\n kernel %+v\n%s", *op, want, inGo, inKernel, dump(image.ruleset))
	}
}

func equal(a, b enforce.Decision) bool {
	return a.Verdict == b.Verdict && a.Rule == b.Rule && a.Posture == b.Posture && a.WouldDeny == b.WouldDeny &&
		a.Unbuildable == b.Unbuildable && slices.Equal(a.Audits, b.Audits) && slices.Equal(a.DryRuns, b.DryRuns)
}

func dump(rs *enforce.Ruleset) string {
	s := fmt.Sprintf("mode %s postures %+v\n", rs.Mode, rs.Postures)
	for i, r := range rs.Rules {
		s += fmt.Sprintf("%d %s %s %s %s %v rec=%v from=%v owner=%v ro=%v notty=%v dry=%v\n", i, r.Policy.Name, r.Rule.Class, r.Rule.Action,
			r.Rule.Object.Kind, r.Objects, r.Rule.Object.Recursive, r.Sources, r.Rule.OwnerOnly, r.Rule.ReadOnly, r.Rule.NoTerminal, r.DryRun)
	}
	return s
}
