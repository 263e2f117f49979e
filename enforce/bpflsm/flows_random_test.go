// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// keptFlows are the flows of datagrams that the process of TestFlowsAtRandom keeps, by slot.
var keptFlows = map[string]net.Conn{}

// keepFlow is the process's side: flow-keep SLOT ADDRESS makes a flow in the place of what was there, flow-use SLOT sends
// a datagram and waits for its answer.
func keepFlow(f []string) error {
	if f[0] == "flow-use" {
		return timedOut(exchange(keptFlows[f[1]]))
	}
	if old := keptFlows[f[1]]; old != nil {
		if err := old.Close(); err != nil {
			return unprepared("close", err)
		}
	}
	c, err := net.Dial("udp", f[2])
	keptFlows[f[1]] = c
	return err
}

// flowWorld is a process with flows to the far machine, under random rules.
type flowWorld struct {
	t          *testing.T
	g          *guard
	r          *rand.Rand
	child      *server
	rules      *enforce.Ruleset
	interfaces bool
	kept       [6]netip.AddrPort
	history    []string
}

// TestFlowsAtRandom uses flows of datagrams again and again under random rulesets. What was decided of a flow before
// answers for it while the ruleset, the interface and its direction are the same: each answer must be that of
// enforce.Decide, and so must those to connections that begin.
func TestFlowsAtRandom(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	farMachine(t)
	w := &flowWorld{t: t, g: newGuard(t), r: rand.New(rand.NewPCG(1, 3))}
	w.child = startServer(t, copySelf(t, t.TempDir()+"/exe"))
	w.publish()
	for slot := range w.kept {
		w.keep(slot)
	}
	answers := map[string]int{}
	for range clearanceSteps / 10 {
		slot := w.r.IntN(len(w.kept))
		switch k := w.r.IntN(1000); {
		case k < 10:
			w.publish()
		case k < 60:
			w.keep(slot)
		case k < 100:
			answers["connect "+w.connect()]++
		default:
			answers[w.use(slot)]++
		}
		if t.Failed() {
			t.Fatalf("after %s", strings.Join(w.history, "; "))
		}
	}
	t.Logf("answers: %v", answers)
	for _, answer := range []string{"ok", "EPERM", "connect ok", "connect EACCES"} {
		if answers[answer] == 0 {
			t.Errorf("nothing was answered by %s", answer)
		}
	}
}

func (w *flowWorld) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
	if extra := len(w.history) - 40; extra > 0 {
		w.history = slices.Delete(w.history, 0, extra)
	}
}

func (w *flowWorld) address() netip.AddrPort {
	peer := []string{farAddress, farAddress6}[w.r.IntN(2)]
	return netip.AddrPortFrom(netip.MustParseAddr(peer), uint16(9+w.r.IntN(2)))
}

// publish publishes random rules. An interface is named by all of the rules or by none: a connection to where one that
// names it decides is not refused when it begins, but waits.
func (w *flowWorld) publish() {
	w.interfaces = w.r.IntN(3) == 0
	var list []enforce.Rule
	for range 1 + w.r.IntN(4) {
		list = append(list, w.rule())
	}
	w.rules = rules(enforce.ModeEnforce, []enforce.Posture{enforce.PostureAudit, enforce.PostureBlock}[w.r.IntN(2)], list...)
	w.g.apply(w.t, enforce.StepPublish{Ruleset: w.rules})
	w.note("publish")
}

func (w *flowWorld) rule() enforce.Rule {
	action := []policies.Action{policies.ActionBlock, policies.ActionBlock, policies.ActionAllow, policies.ActionAudit}[w.r.IntN(4)]
	peer := []string{farAddress + "/32", "198.51.100.0/24", "0.0.0.0/0", farAddress6 + "/128", "::/0", "192.0.2.0/24"}[w.r.IntN(6)]
	protocol := []string{"UDP", "TCP", ""}[w.r.IntN(3)]
	first := []int{0, 9, 10}[w.r.IntN(3)]
	var interfaces []string
	if w.interfaces {
		interfaces = []string{[]string{"near0", "near0", "eth7"}[w.r.IntN(3)]}
	}
	return egress(action, peer, protocol, first, first, interfaces...)
}

func (w *flowWorld) keep(slot int) {
	w.kept[slot] = w.address()
	if answer := w.child.ask(w.t, fmt.Sprint("flow-keep ", slot, " ", w.kept[slot])); answer != "ok" {
		w.t.Errorf("a socket to %v: %s", w.kept[slot], answer)
	}
	w.note("keep %d to %v", slot, w.kept[slot])
}

func (w *flowWorld) use(slot int) string {
	answer := w.child.ask(w.t, fmt.Sprint("flow-use ", slot))
	w.note("use %d: %s", slot, answer)
	w.compare(&enforce.Flow{Peer: w.kept[slot].Addr(), Protocol: "UDP", Port: int(w.kept[slot].Port()), Interface: "near0"}, answer, "EPERM")
	return answer
}

func (w *flowWorld) connect() string {
	if w.interfaces {
		return "not tried"
	}
	to := w.address()
	answer := w.child.ask(w.t, "flow tcp "+to.String())
	w.note("connect to %v: %s", to, answer)
	w.compare(&enforce.Flow{Peer: to.Addr(), Protocol: "TCP", Port: int(to.Port()), Interface: "near0"}, answer, "EACCES")
	return answer
}

func (w *flowWorld) compare(f *enforce.Flow, answer, denied string) {
	want := w.rules.Decide(enforce.Operation{Class: policies.ClassEgress, Flow: f})
	if deny := want.Verdict == enforce.Deny; deny && answer != denied || !deny && answer != "ok" {
		w.t.Errorf("%+v: %s, to be decided %+v\n%s", *f, answer, want, dump(w.rules))
	}
}
