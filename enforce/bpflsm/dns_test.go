// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// question is a DNS message that asks for the addresses of a name.
func question(name string) []byte {
	m := []byte{0x4d, 0x75, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label != "" {
			m = append(append(m, byte(len(label))), label...)
		}
	}
	return append(m, 0, 0, 1, 0, 1)
}

// ask sends a question to port 53 of this machine in some way.
func ask(name, how string) error {
	m, local := question(name), &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}
	prefixed := append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
	switch how {
	case "udp":
		return onSocket(unix.SOCK_DGRAM, func(fd int) error { return unix.Sendto(fd, m, 0, local) })
	case "udp6":
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Sendto(fd, m, 0, &unix.SockaddrInet6{Port: 53, Addr: [16]byte{15: 1}}), unix.Close(fd))
	case "vector":
		return onSocket(unix.SOCK_DGRAM, func(fd int) error {
			_, err := unix.SendmsgBuffers(fd, [][]byte{m[:5], m[5:14], m[14:]}, nil, local, 0)
			return err
		})
	case "write", "pieces":
		return onSocket(unix.SOCK_DGRAM, func(fd int) error {
			if err := unix.Connect(fd, local); err != nil {
				return err
			}
			if how == "pieces" {
				return errors.Join(unix.Send(fd, m[:12], unix.MSG_MORE), unix.Send(fd, m[12:], 0))
			}
			_, err := unix.Write(fd, m)
			return err
		})
	case "tcp", "length":
		return onSocket(unix.SOCK_STREAM, func(fd int) error {
			if err := unix.Connect(fd, local); err != nil {
				return err
			}
			if how == "length" {
				return errors.Join(unix.Send(fd, prefixed[:2], 0), unix.Send(fd, m, 0))
			}
			return unix.Send(fd, prefixed, 0)
		})
	}
	return askHidden(m, how)
}

func domain(action policies.Action, name string, sources ...string) enforce.Rule {
	return rule(policies.ClassDNS, action, policies.ObjectDomain, name, sources...)
}

func TestDNS(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	server, err := net.Listen("tcp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	g := newGuard(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		domain(policies.ActionBlock, "blocked.example"), domain(policies.ActionAudit, "seen.example"))})
	operations := map[string]string{
		"ask notblocked.example udp": "ok", "ask blocked.example.org tcp": "ok", "ask example udp": "ok", "ask . udp": "ok",
		"ask seen.example udp": "ok", "udp 9": "ok", "udp 53": "EACCES", "ask open.example length": "ok",
		"ask open.example pieces": "ok", "ask blocked.example pieces": "EPERM",
	}
	for _, how := range []string{"udp", "udp6", "vector", "write", "tcp", "length"} {
		operations["ask a.b.Blocked.EXAMPLE "+how] = "EACCES"
		operations["ask open.example "+how] = "ok"
	}
	operations["ask "+strings.Repeat("a.", 115)+"blocked.example udp"] = "EACCES"
	operations["ask "+strings.Repeat("a.", 115)+"open.example udp"] = "ok"
	expect(t, "/proc/self/exe", operations)
	lines := strings.Join(g.seen(t), "\n")
	for _, want := range []string{"query a.b.blocked.example denied by p00000", "query seen.example audited-by p00001"} {
		if !strings.Contains(lines, want) {
			t.Errorf("no event %q in\n%s", want, lines)
		}
	}
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, domain(policies.ActionAllow, "open.example", os.Args[0]))
	rs.Postures.Network = enforce.PostureBlock
	rs.Rules[0].Sources = []string{must(os.Readlink("/proc/self/exe"))}
	g.apply(t, enforce.StepPublish{Ruleset: rs})
	expect(t, "/proc/self/exe", map[string]string{
		"ask open.example udp": "ok", "ask a.open.example tcp": "ok", "ask other.example udp": "EACCES",
		"ask other.example tcp": "EACCES", "udp 9": "ok",
	})
}
