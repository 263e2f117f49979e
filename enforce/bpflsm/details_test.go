// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// TestEventDetails: what is told by itself says where the caller was and what a program was to be started with, also when it
// was denied; what does not fit is left out, and said to be.
func TestEventDetails(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	watched, blocked, file := copySelf(t, d+"/watched"), copySelf(t, d+"/blocked"), d+"/file"
	write(t, file, "x", 0o644)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassProcess, policies.ActionAudit, policies.ObjectPath, watched),
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, blocked),
		rule(policies.ClassFile, policies.ActionAudit, policies.ObjectPath, file))})
	limit := int(bpf.MusterEventLimitEVENT_ARGUMENTS)
	long, many := strings.Repeat("x", limit+1), slices.Repeat([]string{"ab"}, limit/3+1)
	try(t, "chdir "+d, "args "+watched+" one two", "args "+blocked+" three", "args "+watched, "args "+watched+" "+long,
		"args "+watched+" "+strings.Join(many, " "), "read "+file)
	var lines []string
	for _, e := range g.taken(t) {
		if e.Cwd != d || e.Operation == "open" && e.Args != nil {
			t.Errorf("%+v", e)
		}
		lines = append(lines, strings.TrimPrefix(fmt.Sprintf("%s %q %t", e.Resource, e.Args, e.ArgsCut), d))
	}
	want(t, lines, `/watched ["one" "two"] false`, `/blocked ["three"] false`, `/watched [] false`,
		fmt.Sprintf("/watched [%q] true", long[:limit-1]),
		fmt.Sprintf("/watched %q true", append(slices.Clone(many[:limit/3]), "a")), `/file [] false`)
}

// TestFoldsHaveNoDetails: one record for many starts has the arguments of none.
func TestFoldsHaveNoDetails(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := t.TempDir()
	blocked := copySelf(t, d+"/blocked")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, blocked))})
	const times = 200
	try(t, strings.Repeat("args "+blocked+" one two\n", times))
	var all, folded uint64
	for _, e := range g.taken(t) {
		all += e.Count
		if e.Since.IsZero() {
			if !slices.Equal(e.Args, []string{"one", "two"}) || e.Cwd == "" {
				t.Errorf("%+v", e)
			}
			continue
		}
		folded += e.Count
		if e.Args != nil || e.ArgsCut || e.Cwd != "" || e.Resource != blocked {
			t.Errorf("folded: %+v", e)
		}
	}
	if all != times || folded == 0 {
		t.Errorf("%d told of, %d of them folded", all, folded)
	}
}

// TestPeersAreTold: a scan of many hosts or ports names each of them, and what repeats is folded all the same.
func TestPeersAreTold(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		protocol(policies.ActionAudit, "udp"), protocol(policies.ActionAudit, "tcp"))})
	const peers, ports, times = 100, 50, 100
	var operations []string
	for i := range peers {
		operations = append(operations, fmt.Sprintf("datagram 127.0.1.%d 9", 1+i))
	}
	for i := range ports {
		operations = append(operations, fmt.Sprintf("tcp %d", 1+i))
	}
	operations = append(operations, slices.Repeat([]string{"datagram 127.0.0.1 9"}, times)...)
	try(t, operations...)
	named, records := map[string]uint64{}, 0
	for _, e := range g.taken(t) {
		if e.Operation != "socket" {
			named[e.Operation+" "+e.Data] += e.Count
			records++
		}
	}
	if len(named) != peers+ports+1 || named["send remoteip=127.0.0.1 port=9"] != times || named["connect remoteip=127.0.0.1 port=9"] != 1 {
		t.Errorf("%d peers are named: %v", len(named), named)
	}
	if records >= peers+ports+times {
		t.Errorf("%d records: nothing was folded", records)
	}
}
