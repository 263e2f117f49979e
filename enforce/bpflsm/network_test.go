// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

func protocol(action policies.Action, name string, sources ...string) enforce.Rule {
	return rule(policies.ClassNetwork, action, policies.ObjectProtocol, name, sources...)
}

// numbersOf reads "socket 2 3 17" and the like.
func numbersOf(words []string) []int {
	var list []int
	for _, w := range words {
		n, _ := strconv.Atoi(w)
		list = append(list, n)
	}
	return list
}

// network carries out the probe's operations on sockets.
func network(f []string) error {
	switch n := numbersOf(f[1:]); f[0] {
	case "flow": // PROTOCOL ADDRESS:PORT
		return flow(f[1], f[2])
	case "flow-keep", "flow-use":
		return keepFlow(f)
	case "ask": // NAME HOW
		return ask(f[1], f[2])
	case "socket": // FAMILY TYPE PROTOCOL
		fd, err := unix.Socket(n[0], n[1], n[2])
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	case "udp": // PORT
		return onSocket(unix.SOCK_DGRAM, func(fd int) error {
			return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: n[0], Addr: [4]byte{127, 0, 0, 1}})
		})
	case "datagram": // ADDRESS PORT
		return onSocket(unix.SOCK_DGRAM, func(fd int) error {
			return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: n[1], Addr: netip.MustParseAddr(f[1]).As4()})
		})
	case "tcp": // PORT
		return onSocket(unix.SOCK_STREAM, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: n[0], Addr: [4]byte{127, 0, 0, 1}})
		})
	case "pair":
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return err
	}
	return fmt.Errorf("unknown operation %q", f[0])
}

func onSocket(kind int, use func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fd)
}

func expect(t *testing.T, exe string, operations map[string]string) {
	t.Helper()
	for op, want := range operations {
		if got := tryAs(t, exe, op); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %s", op, got, want)
		}
	}
}

func TestProtocols(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).Port
	g := newGuard(t)
	for name, tc := range map[string]struct {
		denied, permitted []string
	}{
		"tcp":       {[]string{"socket 2 1 0", "socket 10 1 6", "socket 2 1 262", "socket 43 1 0"}, []string{"udp 9", "socket 1 1 0", "socket 2 3 6"}},
		"udp":       {[]string{"udp 9", "socket 10 2 0", "socket 2 2 136"}, []string{"socket 2 1 0", "socket 1 2 0", "socket 2 3 17"}},
		"icmp":      {[]string{"socket 2 3 1", "socket 2 2 1"}, []string{"socket 10 3 58", "socket 2 3 17"}},
		"icmpv6":    {[]string{"socket 10 3 58"}, []string{"socket 2 3 1"}},
		"raw":       {[]string{"socket 2 3 17", "socket 17 3 0", "socket 17 2 0"}, []string{"socket 16 3 0", "udp 9"}},
		"packet":    {[]string{"socket 17 3 0", "socket 17 2 0"}, []string{"socket 2 3 17"}},
		"stream":    {[]string{"pair", "socket 2 1 0"}, []string{"udp 9", "socket 1 2 0"}},
		"dgram":     {[]string{"udp 9", "socket 1 2 0", "socket 17 2 0"}, []string{"pair", "socket 17 3 0"}},
		"seqpacket": {[]string{"socket 1 5 0"}, []string{"pair"}},
		"all":       {[]string{"udp 9", "socket 2 1 0", "socket 2 3 1", "socket 17 3 0"}, []string{"pair", "socket 16 3 0", "socket 1 2 0"}},
	} {
		g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, protocol(policies.ActionBlock, name))})
		operations := map[string]string{}
		for _, op := range tc.denied {
			operations[op] = "EACCES"
		}
		for _, op := range tc.permitted {
			operations[op] = "ok"
		}
		t.Run(name, func(t *testing.T) { expect(t, "/proc/self/exe", operations) })
	}
	a := copySelf(t, filepath.Join(t.TempDir(), "a"))
	tcp := fmt.Sprintf("tcp %d", port)
	g.taken(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		protocol(policies.ActionAudit, "tcp", a), protocol(policies.ActionBlock, "udp", a))})
	expect(t, a, map[string]string{tcp: "ok", "udp 9": "EACCES"})
	expect(t, "/proc/self/exe", map[string]string{tcp: "ok", "udp 9": "ok"})
	lines := strings.Join(g.seen(t), "\n")
	for _, want := range []string{
		"socket domain=AF_INET type=SOCK_STREAM protocol=0 audited-by p00000",
		"connect domain=AF_INET type=SOCK_STREAM protocol=TCP audited-by p00000",
		"socket domain=AF_INET type=SOCK_DGRAM protocol=0 denied by p00001",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no event %q in\n%s", want, lines)
		}
	}
	g.apply(t, enforce.StepPublish{Ruleset: func() *enforce.Ruleset {
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit, protocol(policies.ActionAllow, "tcp", a))
		rs.Postures.Network = enforce.PostureBlock
		return rs
	}()})
	// "If the subject has at least one Allow rule of that class, the default posture decides": of what no rule can name,
	// too.
	expect(t, a, map[string]string{tcp: "ok", "udp 9": "EACCES", "socket 16 3 0": "EACCES", "socket 16 2 0": "EACCES", "socket 1 1 0": "EACCES"})
	expect(t, "/proc/self/exe", map[string]string{tcp: "ok", "udp 9": "ok", "socket 16 3 0": "ok"})
	if line, lines := "socket domain=AF_NETLINK type=SOCK_RAW protocol=0 denied by posture", strings.Join(g.seen(t), "\n"); !strings.Contains(lines, line) {
		t.Errorf("no event %q in\n%s", line, lines)
	}
}

// TestHeldSocket uses sockets that are older than the ruleset, and those that another program made.
func TestHeldSocket(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	c, in, lines := startChild(t, "hold")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit,
		protocol(policies.ActionBlock, "tcp"), protocol(policies.ActionBlock, "udp"))})
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if got := lines.Text(); got != "[EACCES EACCES EACCES EACCES EACCES EACCES]" {
		t.Errorf("connect, send, write, bind, listen, accept: %s", got)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

// hold makes sockets, waits until standard input ends, and prints what using them answers.
func hold() {
	stream := func() int { return must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }
	local := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	fresh, bound, listening := stream(), stream(), stream()
	udp := must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	must(0, errors.Join(unix.Bind(bound, local), unix.Bind(listening, local), unix.Listen(listening, 1)))
	port := must(unix.Getsockname(listening)).(*unix.SockaddrInet4)
	begun := stream()
	must(0, errors.Join(unix.Connect(begun, port), unix.Connect(udp, port)))
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_, written := unix.Write(begun, []byte("x"))
	_, _, accepted := unix.Accept(listening)
	var answers []string
	for _, err := range []error{
		unix.Connect(fresh, port), unix.Send(udp, []byte("x"), 0), written, unix.Bind(fresh, local), unix.Listen(bound, 1), accepted,
	} {
		answers = append(answers, errorName(err))
	}
	fmt.Println(answers)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
