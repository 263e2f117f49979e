// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// flowRule is a rule on flows.
func flowRule(action policies.Action, f policies.Flow) enforce.Rule {
	detail := string(must(json.Marshal(f)))
	r := rule(policies.Class(f.Direction), action, policies.ObjectFlow, f.Direction)
	r.Rule.Object.Detail = detail
	return r
}

func ingress(action policies.Action, peer, protocol string, first, last int) enforce.Rule {
	f := policies.Flow{Direction: policies.Ingress, Peers: []string{peer}}
	if first > 0 {
		f.Ports = []policies.FlowPort{{First: first, Last: last, Protocol: protocol}}
	}
	return flowRule(action, f)
}

func egress(action policies.Action, peer, protocol string, first, last int, interfaces ...string) enforce.Rule {
	f := policies.Flow{Direction: policies.Egress, Peers: []string{peer}, Interfaces: interfaces}
	if first > 0 {
		f.Ports = []policies.FlowPort{{First: first, Last: last, Protocol: protocol}}
	}
	return flowRule(action, f)
}

func enforced(list ...enforce.Rule) enforce.Step {
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
	return enforce.StepPublish{Ruleset: rs}
}

func TestFlowsOut(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	farMachine(t)
	g := newGuard(t)
	const tcp9, tcp10, udp9, udp10 = "flow tcp " + farAddress + ":9", "flow tcp " + farAddress + ":10", "flow udp " + farAddress + ":9", "flow udp " + farAddress + ":10"
	const sixTCP9, sixUDP9, sixUDP10 = "flow tcp [" + farAddress6 + "]:9", "flow udp [" + farAddress6 + "]:9", "flow udp [" + farAddress6 + "]:10"
	const mapped, pinged, pinged6, sctp = "flow udp [::ffff:" + farAddress + "]:9", "flow ping " + farAddress, "flow ping " + farAddress6, "flow sctp " + farAddress + ":9"
	all := []string{tcp9, tcp10, udp9, udp10, sixTCP9, sixUDP9, sixUDP10, mapped, pinged, pinged6, sctp}
	ok := func(but map[string]string) map[string]string {
		operations := map[string]string{}
		for _, op := range all {
			operations[op] = "ok"
		}
		maps.Copy(operations, but)
		return operations
	}
	for name, tc := range map[string]struct {
		rules []enforce.Rule
		want  map[string]string
	}{
		"nothing":   {nil, nil},
		"udp port":  {[]enforce.Rule{egress(policies.ActionBlock, farAddress+"/32", "UDP", 9, 9)}, map[string]string{udp9: "EPERM", mapped: "EPERM"}},
		"tcp range": {[]enforce.Rule{egress(policies.ActionBlock, "198.51.100.0/25", "TCP", 8, 9)}, map[string]string{tcp9: "EACCES"}},
		"six":       {[]enforce.Rule{egress(policies.ActionBlock, "2001:db8::/33", "", 9, 9)}, map[string]string{sixUDP9: "EPERM", sixTCP9: "EACCES"}},
		"sctp":      {[]enforce.Rule{egress(policies.ActionBlock, farAddress+"/32", "SCTP", 9, 9)}, map[string]string{sctp: "EACCES"}},
		"everything": {[]enforce.Rule{egress(policies.ActionBlock, farAddress+"/32", "", 0, 0)}, map[string]string{
			tcp9: "EACCES", tcp10: "EACCES", udp9: "EPERM", udp10: "EPERM", mapped: "EPERM", pinged: "EPERM", sctp: "EACCES",
		}},
		"interface":       {[]enforce.Rule{egress(policies.ActionBlock, "0.0.0.0/0", "UDP", 9, 9, "near0")}, map[string]string{udp9: "EPERM", mapped: "EPERM"}},
		"other interface": {[]enforce.Rule{egress(policies.ActionBlock, "0.0.0.0/0", "", 9, 9, "eth7")}, nil},
	} {
		g.apply(t, enforced(tc.rules...))
		t.Run(name, func(t *testing.T) { expect(t, "/proc/self/exe", ok(tc.want)) })
	}
	g.apply(t, enforced(egress(policies.ActionBlock, farAddress+"/32", "", 9, 9)))
	want(t, try(t, "flow fastopen "+farAddress+":9", "flow raw "+farAddress+":9", "flow raw "+farAddress+":10", "flow piece "+farAddress+":10"),
		"EACCES", "EPERM", "ok", "EPERM")
	// The agent, which this process is, gets to where its policies come from.
	for _, protocol := range []string{"tcp", "udp"} {
		if err := flow(protocol, farAddress+":9"); err != nil {
			t.Errorf("the agent, %s: %v", protocol, err)
		}
	}
	g.taken(t)
	g.apply(t, enforced(egress(policies.ActionBlock, farAddress+"/32", "", 9, 9), egress(policies.ActionAudit, farAddress+"/32", "", 10, 10)))
	want(t, try(t, tcp9, udp9, tcp10, udp10, "flow udp "+nearAddress+":9"), "EACCES", "EPERM", "ok", "ok", "ECONNREFUSED")
	var lines []string
	for _, e := range g.taken(t) {
		lines = append(lines, eventLine(e))
		if e.PID == 0 || e.Source == "" || e.Comm == "" || e.Class != policies.ClassEgress || e.Count != 1 || e.Parent == "" {
			t.Errorf("event %+v", e)
		}
	}
	slices.Sort(lines)
	want(t, lines,
		"connect remoteip="+farAddress+" port=9 protocol=TCP denied by p00000",
		"send remoteip="+farAddress+" port=10 protocol=TCP audited-by p00001",
		"send remoteip="+farAddress+" port=10 protocol=UDP audited-by p00001",
		"send remoteip="+farAddress+" port=9 protocol=UDP denied by p00000")
}

// nearServer answers on this machine.
func nearServer(t *testing.T) {
	t.Helper()
	_, in, lines := startChild(t, "flow-serve")
	t.Cleanup(func() { _ = in.Close() })
	if lines.Text() != "ready" {
		t.Fatalf("near server: %q", lines.Text())
	}
}

func TestFlowsIn(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	farMachine(t)
	nearServer(t)
	g := newGuard(t)
	operations := []string{
		"flow tcp " + nearAddress + ":9", "flow udp " + nearAddress + ":9", "flow tcp " + nearAddress + ":10", "flow udp " + nearAddress + ":10",
		"flow tcp [" + nearAddress6 + "]:9", "flow ping " + nearAddress, "flow ping " + nearAddress6,
	}
	back := []string{"flow tcp " + farAddress + ":9", "flow udp " + farAddress + ":9", "flow ping " + farAddress}
	for _, tc := range []struct {
		rule      enforce.Rule
		far, near string
	}{
		{ingress(policies.ActionBlock, "203.0.113.0/24", "", 0, 0), "ok ok ok ok ok ok ok", "ok ok ok"},
		{ingress(policies.ActionBlock, farAddress+"/32", "TCP", 9, 9), "ETIMEDOUT ok ok ok ok ok ok", "ok ok ok"},
		{ingress(policies.ActionBlock, farAddress+"/32", "", 10, 65535), "ok ok ETIMEDOUT ETIMEDOUT ok ok ok", "ok ok ok"},
		{ingress(policies.ActionBlock, farAddress+"/32", "", 0, 0), "ETIMEDOUT ETIMEDOUT ETIMEDOUT ETIMEDOUT ok ETIMEDOUT ok", "ok ok ok"},
		{ingress(policies.ActionBlock, farAddress6+"/128", "", 0, 0), "ok ok ok ok ETIMEDOUT ok ETIMEDOUT", "ok ok ok"},
	} {
		g.apply(t, enforced(tc.rule))
		g.taken(t)
		if got := strings.Join(farTry(t, operations...), " "); got != tc.far {
			t.Errorf("%s: from far %s, want %s", tc.rule.Rule.Object.Detail, got, tc.far)
		}
		if got := strings.Join(try(t, back...), " "); got != tc.near {
			t.Errorf("%s: from near %s, want %s", tc.rule.Rule.Object.Detail, got, tc.near)
		}
		for _, e := range g.taken(t) {
			if e.Rule == nil || e.Class != policies.ClassIngress || !strings.HasPrefix(e.Resource, "remoteip=") || !strings.Contains(e.Data, "iface=near0") {
				t.Errorf("event %+v", e)
			}
		}
	}
}

func TestFlowLists(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	farMachine(t)
	nearServer(t)
	g := newGuard(t)
	listed := func(posture enforce.Posture, list ...enforce.Rule) {
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
		rs.Postures.Network = posture
		g.apply(t, enforce.StepPublish{Ruleset: rs})
	}
	out := []string{"flow udp " + farAddress + ":9", "flow udp " + farAddress + ":10", "flow tcp " + farAddress + ":9", "flow udp " + nearAddress + ":9"}
	in := []string{"flow tcp " + nearAddress + ":9", "flow tcp " + nearAddress + ":10"}
	// What leaves the far machine is judged by the same rules.
	list := []enforce.Rule{egress(policies.ActionAllow, farAddress+"/32", "UDP", 9, 9), egress(policies.ActionAllow, nearAddress+"/32", "", 0, 0)}
	listed(enforce.PostureBlock, list...)
	want(t, try(t, out...), "ok", "EPERM", "EACCES", "ok")
	want(t, farTry(t, in...), "ok", "ok")
	lines := strings.Join(g.seen(t), "\n")
	for _, line := range []string{"send remoteip=" + farAddress + " port=10 protocol=UDP denied by posture", "connect remoteip=" + farAddress + " port=9 protocol=TCP denied by posture"} {
		if !strings.Contains(lines, line) {
			t.Errorf("no event %q in\n%s", line, lines)
		}
	}
	listed(enforce.PostureAudit, list...)
	want(t, try(t, out...), "ok", "ok", "ok", "ok")
	listed(enforce.PostureBlock, ingress(policies.ActionAllow, nearAddress+"/32", "", 0, 0), ingress(policies.ActionAllow, farAddress+"/32", "TCP", 10, 10))
	want(t, try(t, out...), "ok", "ok", "ok", "ok")
	want(t, farTry(t, in...), "ETIMEDOUT", "ok")
	// A Block is stronger than an Allow, whichever names fewer addresses.
	listed(enforce.PostureAudit, egress(policies.ActionAllow, farAddress+"/32", "UDP", 9, 9), egress(policies.ActionBlock, "198.51.100.0/24", "", 0, 0))
	want(t, try(t, out...), "EPERM", "EPERM", "EACCES", "ok")
	// In audit mode nothing is denied, and all of it is told.
	g.taken(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeAudit, enforce.PostureAudit, egress(policies.ActionBlock, farAddress+"/32", "", 9, 9))})
	want(t, try(t, out...), "ok", "ok", "ok", "ok")
	lines = strings.Join(g.seen(t), "\n")
	want(t, []string{lines}, "send remoteip="+farAddress+" port=9 protocol=UDP would-deny by p00000\nsend remoteip="+farAddress+" port=9 protocol=TCP would-deny by p00000")
}

// TestFlowsHeld uses flows that are older than the rules, and than the programs.
func TestFlowsHeld(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	farMachine(t)
	nearServer(t)
	olderOut, olderIn := holdTo(t, farAddress+":9", "/proc/self/exe"), holdTo(t, nearAddress+":9", farCommand()...)
	g := startGuard(t, testRoot)
	out, in := holdTo(t, farAddress+":9", "/proc/self/exe"), holdTo(t, nearAddress+":9", farCommand()...)
	g.apply(t, enforced(egress(policies.ActionBlock, "203.0.113.0/24", "", 0, 0)))
	for _, flow := range []heldFlow{olderOut, olderIn, out, in} {
		want(t, []string{flow.use(t)}, "ok ok")
	}
	g.apply(t, enforced(egress(policies.ActionBlock, farAddress+"/32", "", 0, 0)))
	for _, flow := range []heldFlow{olderOut, out} {
		want(t, []string{flow.use(t)}, "ETIMEDOUT EPERM")
	}
	for _, flow := range []heldFlow{olderIn, in} {
		want(t, []string{flow.use(t)}, "ok ok")
	}
	g.apply(t, enforced(ingress(policies.ActionBlock, farAddress+"/32", "", 9, 9)))
	for _, flow := range []heldFlow{olderIn, in} {
		want(t, []string{flow.use(t)}, "ETIMEDOUT ETIMEDOUT")
	}
	for _, flow := range []heldFlow{olderOut, out} {
		flow.recovers(t)
	}
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	for _, flow := range []heldFlow{olderIn, in} {
		flow.recovers(t)
	}
}

// TestPacketDrift takes the programs off the topmost control group while their pins stay.
func TestPacketDrift(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := startGuard(t, testRoot)
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, egress(policies.ActionBlock, farAddress+"/32", "", 0, 0))
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	for _, name := range []string{bpf.MusterProgPacketOut, bpf.MusterProgPacketIn} {
		l, err := link.LoadPinnedLink(g.pins.linkPath(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	condition := func() map[string]enforce.DriftKind {
		found := map[string]enforce.DriftKind{}
		for _, c := range must(g.Observe(t.Context(), []*enforce.Ruleset{rs})).Components {
			if c.Condition != "" {
				found[c.Name] = c.Condition
			}
		}
		return found
	}
	if got := condition(); len(got) != 2 || got[bpf.MusterProgPacketOut] != "detached" || got[bpf.MusterProgPacketIn] != "detached" {
		t.Errorf("drift %v", got)
	}
	g.apply(t, enforce.StepAttach{Reason: "detached"})
	if got := condition(); len(got) != 0 {
		t.Errorf("drift after repair %v", got)
	}
}
