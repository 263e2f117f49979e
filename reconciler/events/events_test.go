// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func rule(name string, action policies.Action) *enforce.Rule {
	return &enforce.Rule{
		Policy: policies.ID{Kind: policies.KindHost, Name: name},
		Rule:   policies.Rule{Action: action, Severity: 7, Tags: []string{"a", "b"}, Message: "m"},
	}
}

var identity = Identity{
	Fleet: "f", Hostname: "h", Backend: "bpflsm",
	Postures: enforce.Postures{File: enforce.PostureBlock, Network: enforce.PostureAudit},
}

// TestTranslate holds Action and Result against KubeArmor's words.
func TestTranslate(t *testing.T) {
	t.Parallel()
	file := func(change func(*enforce.Event)) enforce.Event {
		ev := enforce.Event{Subject: enforce.Host, Class: policies.ClassFile, Hook: "FILE_OPEN", Mode: enforce.ModeEnforce, Resource: "/etc/shadow", Source: "/bin/cat"}
		change(&ev)
		return ev
	}
	dry := rule("dry", policies.ActionBlock)
	dry.DryRun, dry.Version = true, "v1"
	for name, c := range map[string]struct {
		event enforce.Event
		want  []string // PolicyName, Action, Result, Severity
	}{
		"block": {
			file(func(e *enforce.Event) { e.Rule, e.Verdict = rule("p", policies.ActionBlock), enforce.Deny }),
			[]string{"p|Block|Permission denied|7"},
		},
		"block in audit or held": {file(func(e *enforce.Event) {
			e.Rule, e.WouldDeny, e.Mode = rule("p", policies.ActionBlock), true, enforce.ModeAudit
		}), []string{"p|Audit (Block)|Passed|7"}},
		"audit": {
			file(func(e *enforce.Event) { e.Audits = []*enforce.Rule{rule("w", policies.ActionAudit)} }),
			[]string{"w|Audit|Passed|7"},
		},
		"audit beside a block has the true result": {file(func(e *enforce.Event) {
			e.Rule, e.Verdict, e.Audits = rule("p", policies.ActionBlock), enforce.Deny, []*enforce.Rule{rule("w", policies.ActionAudit)}
		}), []string{"p|Block|Permission denied|7", "w|Audit|Permission denied|7"}},
		"dry run": {
			file(func(e *enforce.Event) { e.DryRuns = []enforce.EventDryRun{{Rule: dry}} }),
			[]string{"dry|Audit (Block)|Passed|7|KubeArmorHostPolicy/dry@v1"},
		},
		"the allow-list of a dry run": {
			file(func(e *enforce.Event) { e.DryRuns = []enforce.EventDryRun{{Rule: dry, Posture: true}} }),
			[]string{"DefaultPosture|Audit (Block)|Passed||KubeArmorHostPolicy/dry@v1"},
		},
		"the allow-list of a host in audit": {
			file(func(e *enforce.Event) {
				e.Posture, e.WouldDeny, e.Mode, e.Lists = true, true, enforce.ModeAudit, []*enforce.Rule{dry}
			}),
			[]string{"DefaultPosture|Audit (Block)|Passed||KubeArmorHostPolicy/dry@v1"},
		},
		"posture blocks": {
			file(func(e *enforce.Event) { e.Posture, e.Verdict = true, enforce.Deny }),
			[]string{"DefaultPosture|Block|Permission denied|"},
		},
		"posture would block": {
			file(func(e *enforce.Event) { e.Posture, e.WouldDeny, e.Mode = true, true, enforce.ModeAudit }),
			[]string{"DefaultPosture|Audit (Block)|Passed|"},
		},
		"posture audits": {
			enforce.Event{Class: policies.ClassNetwork, Posture: true, WouldDeny: true, Mode: enforce.ModeEnforce},
			[]string{"DefaultPosture|Audit|Passed|"},
		},
		"no path": {
			file(func(e *enforce.Event) { e.Verdict, e.Resource = enforce.Deny, "" }),
			[]string{"DefaultPosture|Block|Permission denied|"},
		},
		"system call": {
			enforce.Event{Class: policies.ClassSyscalls, Audits: []*enforce.Rule{rule("s", policies.ActionAudit)}, Errno: 2},
			[]string{"s|Audit|No such file or directory|7"},
		},
		"capability": {
			enforce.Event{Class: policies.ClassCapabilities, Rule: rule("c", policies.ActionBlock), Verdict: enforce.Deny},
			[]string{"c|Block|Operation not permitted|7"},
		},
		"allowed": {file(func(e *enforce.Event) { e.Rule = rule("p", policies.ActionAllow) }), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, r := range Translate(c.event, identity) {
				got = append(got, strings.Join(append([]string{r.PolicyName, r.Action, r.Result, r.Severity}, r.EventData.DryRun...), "|"))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, wanted %q", got, c.want)
			}
		})
	}
}

// TestPresetRecords: presets are enforcers of their own, in KubeArmor's words.
func TestPresetRecords(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"filelessExec": "Process PRESET-FilelessExecutionPreset", "anonymousMapExec": "File PRESET-AnonMapExecutionPreset",
		"protectEnv": "File PRESET-ProtectEnvPreset", "protectProc": "File PRESET-ProtectProcPreset",
	} {
		r := rule("p", policies.ActionBlock)
		r.Rule.Class, r.Rule.Object.Value = policies.ClassPreset, name
		got := Translate(enforce.Event{Subject: enforce.Host, Class: policies.ClassPreset, Rule: r, Verdict: enforce.Deny}, identity)
		if len(got) != 1 || got[0].Operation+" "+got[0].Enforcer != want || got[0].Action != "Block" || got[0].Result != "Permission denied" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestFlowRecords: flows have an enforcer and a type of their own, whether a rule or a posture decided, and any severity.
func TestFlowRecords(t *testing.T) {
	t.Parallel()
	flows := rule("p", policies.ActionBlock)
	flows.Policy.Kind, flows.Rule.Severity = policies.KindNetwork, 12
	negative := rule("q", policies.ActionAudit)
	negative.Policy.Kind, negative.Rule.Severity = policies.KindNetwork, -1
	for class, ev := range map[policies.Class]enforce.Event{
		policies.ClassIngress: {Rule: flows, Verdict: enforce.Deny, Audits: []*enforce.Rule{negative}},
		policies.ClassEgress:  {Posture: true, Verdict: enforce.Deny},
	} {
		ev.Subject, ev.Class, ev.Hook = enforce.Host, class, "CGROUP_SKB_EGRESS"
		list := Translate(ev, identity)
		for _, r := range list {
			if got := r.Type + " " + r.Operation + " " + r.Enforcer; got != "MatchedNetworkPolicy NetworkFirewall NetworkPolicyEnforcer" {
				t.Errorf("%s: %s", class, got)
			}
		}
		if class == policies.ClassIngress && (len(list) != 2 || list[0].Severity != "12" || list[1].Severity != "-1") {
			t.Errorf("severities: %+v", list)
		}
	}
	other := enforce.Event{Subject: enforce.Host, Class: policies.ClassNetwork, Rule: rule("p", policies.ActionBlock), Verdict: enforce.Deny}
	if r := Translate(other, identity)[0]; r.Type != "MatchedHostPolicy" || r.Enforcer != "BPFLSM" {
		t.Errorf("of matchProtocols: %+v", r)
	}
}

func TestRecordFields(t *testing.T) {
	t.Parallel()
	ev := enforce.Event{
		Time: time.Unix(1700000000, 5000).UTC(), Subject: enforce.Host, Class: policies.ClassProcess, Hook: "SECURITY_BPRM_CHECK",
		Rule: rule("p", policies.ActionBlock), Verdict: enforce.Deny, Resource: "/usr/bin/apt", Source: "/bin/bash", Parent: "/usr/sbin/sshd",
		PID: 7, PPID: 5, UID: 1000, Comm: "bash", TTY: "pts0", Data: "data", Cwd: "/root",
		Args: []string{"-y", "install", "", "a b", "it's", "\x1b[0m"}, ArgsCut: true,
	}
	line, err := json.Marshal(Translate(ev, identity)[0])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"Timestamp": float64(1700000000), "UpdatedTime": "2023-11-14T22:13:20.000005Z", "ClusterName": "f", "HostName": "h",
		"HostPID": float64(7), "PID": float64(7), "PPID": float64(5), "HostPPID": float64(5), "UID": float64(1000),
		"ProcessName": "/usr/bin/apt", "ParentProcessName": "/usr/sbin/sshd", "Source": "/bin/bash", "Resource": "/usr/bin/apt",
		"Operation": "Process", "Type": "MatchedHostPolicy", "Tags": "a,b", "Message": "m", "Enforcer": "BPFLSM",
		"Data": `lsm=SECURITY_BPRM_CHECK data args=-y install '' 'a b' 'it'\''s' '` + "\x1b" + `[0m' …`,
		"Cwd":  "/root", "TTY": "pts0", "ContainerName": "",
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, wanted %v", key, got[key], want)
		}
	}
	silent := identity
	silent.NoArguments = true
	if r := Translate(ev, silent)[0]; r.Data != "lsm=SECURITY_BPRM_CHECK data" || r.Cwd != "/root" {
		t.Errorf("without arguments: %+v", r)
	}
	ev.Args, ev.ArgsCut = nil, false
	if r := Translate(ev, identity)[0]; r.Data != "lsm=SECURITY_BPRM_CHECK data" {
		t.Errorf("of none: %+v", r)
	}
	ev.Subject = "c1"
	if r := Translate(ev, identity)[0]; r.Type != "MatchedPolicy" || r.ContainerID != "c1" {
		t.Errorf("container: %+v", r)
	}
}

// TestSeen: what a visible class shows is a log of no policy, beside the alerts of audit rules.
func TestSeen(t *testing.T) {
	t.Parallel()
	ev := enforce.Event{Subject: enforce.Host, Class: policies.ClassFile, Resource: "/f", Source: "/bin/cat", Visible: true}
	list := Translate(ev, identity)
	if len(list) != 1 || list[0].Type != "HostLog" || list[0].PolicyName != "" || list[0].Action != "" || list[0].Result != "Passed" || list[0].Alert() {
		t.Errorf("%+v", list)
	}
	ev.Subject = "c1"
	if list := Translate(ev, identity); len(list) != 1 || list[0].Type != "ContainerLog" || list[0].ContainerID != "c1" {
		t.Errorf("of a container: %+v", list)
	}
	ev.Visible = false
	if list := Translate(ev, identity); len(list) > 0 {
		t.Errorf("nothing to tell: %+v", list)
	}
}

var errDisk = errors.New("disk full")

// gate is a sink that lets nothing through until it is opened.
type gate struct {
	open chan struct{}
	bytes.Buffer
	fail bool
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	if g.fail {
		return 0, errDisk
	}
	return g.Buffer.Write(b)
}

// TestPipeNeverBlocks: with a sink that stands still every push returns, and what finds no room is counted.
func TestPipeNeverBlocks(t *testing.T) {
	t.Parallel()
	sink := &gate{open: make(chan struct{})}
	p := NewPipe(sink, 8, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	ev := enforce.Event{Class: policies.ClassFile, Rule: rule("p", policies.ActionBlock), Verdict: enforce.Deny}
	const pushed = 1000
	for range pushed {
		p.Push(ev)
	}
	lost := p.Losses()[LossQueue]
	if lost < pushed-writeSize/500-8 { // what is in the queue and in one write is not
		t.Errorf("lost %d", lost)
	}
	close(sink.open)
	if err := p.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	if written := uint64(bytes.Count(sink.Bytes(), []byte("\n"))); written+lost != pushed {
		t.Errorf("%d written and %d lost of %d", written, lost, pushed)
	}
	if counts := p.Counts(); len(counts) != 1 || counts[0].Count != pushed {
		t.Errorf("counts %+v", counts)
	}
}

func TestPipeCountsFailedWrites(t *testing.T) {
	t.Parallel()
	sink := &gate{open: make(chan struct{}), fail: true}
	close(sink.open)
	p := NewPipe(sink, 8, slog.New(slog.DiscardHandler))
	go p.Run(t.Context())
	p.Push(enforce.Event{Audits: []*enforce.Rule{rule("w", policies.ActionAudit)}})
	if err := p.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := p.Losses()[LossWrite]; n != 1 {
		t.Errorf("%d", n)
	}
}

// TestSlowFollowerIsCutOff: it learns of it by the end of its stream, and nobody else waits.
func TestSlowFollowerIsCutOff(t *testing.T) {
	t.Parallel()
	p := NewPipe(nil, 16, slog.New(slog.DiscardHandler))
	go p.Run(t.Context())
	lines, stop := p.Follow()
	defer stop()
	for range followerQueue + 10 {
		p.Push(enforce.Event{Audits: []*enforce.Rule{rule("w", policies.ActionAudit)}})
		if err := p.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for range lines {
		n++
	}
	if n != followerQueue || p.Losses()[LossSlow] != 1 {
		t.Errorf("%d lines, losses %v", n, p.Losses())
	}
}

func TestCountersAreBounded(t *testing.T) {
	t.Parallel()
	p := NewPipe(nil, 1, slog.New(slog.DiscardHandler))
	for i := range maxCounters + 50 {
		p.count(Record{PolicyName: "p" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String(), Action: "Block"})
	}
	if n := len(p.Counts()); n > maxCounters+1 {
		t.Errorf("%d counters", n)
	}
}
