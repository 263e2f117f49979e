// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The far machine is a network namespace behind a cable; it answers on these ports.
const (
	nearAddress, farAddress   = "198.51.100.1", "198.51.100.2"
	nearAddress6, farAddress6 = "2001:db8:1::1", "2001:db8:1::2"
	answerTime                = 1500 * time.Millisecond
)

// farMachine makes the far machine and what answers on it.
func farMachine(t *testing.T) {
	t.Helper()
	ip := func(words string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", words, err, out)
		}
	}
	ip("netns add far")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "far").Run() })
	ip("link add near0 type veth peer name far0 netns far")
	// A namespace is taken down some time after its end, and the cable with it: the next test lays one of the same name.
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "near0").Run() })
	ip("addr add " + nearAddress + "/24 dev near0")
	ip("addr add " + nearAddress6 + "/64 dev near0 nodad")
	ip("link set near0 up")
	for _, words := range []string{
		"addr add " + farAddress + "/24 dev far0", "addr add " + farAddress6 + "/64 dev far0 nodad", "link set far0 up", "link set lo up",
	} {
		ip("-n far " + words)
	}
	_, in, lines := far(t, "flow-serve")
	t.Cleanup(func() { _ = in.Close() })
	if lines.Text() != "ready" {
		t.Fatalf("the far machine: %q", lines.Text())
	}
}

// far runs a probe on the far machine.
func far(t *testing.T, script string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	return startCommand(t, script, farCommand()...)
}

func farCommand() []string {
	return []string{"ip", "netns", "exec", "far", must(os.Readlink("/proc/self/exe"))}
}

// farTry carries out operations on the far machine.
func farTry(t *testing.T, operations ...string) []string {
	t.Helper()
	command := farCommand()
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	c.Env = append(os.Environ(), probeVariable+"="+strings.Join(operations, "\n"))
	out, err := c.Output()
	if err != nil {
		t.Fatalf("far %q: %v", operations, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// heldFlow is a connection and a flow of datagrams that a child keeps.
type heldFlow struct {
	in    io.Writer
	lines *bufio.Scanner
}

func holdTo(t *testing.T, address string, command ...string) heldFlow {
	t.Helper()
	t.Setenv("MUSTER_TEST_FLOW", address)
	_, in, lines := startCommand(t, "flow-hold", command...)
	t.Cleanup(func() { _ = in.Close() })
	if lines.Text() != "ready" {
		t.Fatalf("flow to %s: %q", address, lines.Text())
	}
	return heldFlow{in, lines}
}

// use says what using the connection and the datagrams answers.
func (h heldFlow) use(t *testing.T) string {
	t.Helper()
	if _, err := h.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if !h.lines.Scan() {
		t.Fatal("the holder of a flow is gone")
	}
	return h.lines.Text()
}

// recovers: what was sent in vain is sent again after a while.
func (h heldFlow) recovers(t *testing.T) {
	t.Helper()
	got := ""
	for range 8 {
		if got = h.use(t); got == "ok ok" {
			return
		}
	}
	t.Errorf("a flow that is permitted again: %s", got)
}

// serve answers on ports 9 and 10 of every address, by TCP and UDP, until standard input ends.
func serve() {
	for _, port := range []string{":9", ":10"} {
		udp := must(net.ListenPacket("udp", port))
		tcp := must(net.Listen("tcp", port))
		go func() {
			var b [64]byte
			for {
				n, from, err := udp.ReadFrom(b[:])
				if err == nil {
					_, _ = udp.WriteTo(b[:n], from)
				}
			}
		}()
		go func() {
			for {
				c, err := tcp.Accept()
				if err == nil {
					go func() { _, _ = io.Copy(c, c) }()
				}
			}
		}()
	}
	listener := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP))
	must(0, errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Port: 9}), unix.Listen(listener, 8)))
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// flow sends something and waits for the answer: flow PROTOCOL ADDRESS:PORT, or flow ping ADDRESS.
func flow(protocol, to string) error {
	switch protocol {
	case "tcp", "udp":
		c, err := net.DialTimeout(protocol, to, answerTime)
		if err != nil {
			return timedOut(err)
		}
		defer c.Close()
		return timedOut(exchange(c))
	case "ping":
		return timedOut(ping(to))
	case "fastopen", "raw", "piece":
		return sendOddly(protocol, must(net.ResolveUDPAddr("udp4", to)))
	case "sctp":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(answerTime))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
			return err
		}
		a := must(net.ResolveTCPAddr("tcp4", to))
		return timedOut(unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}))
	}
	return errors.New("unknown protocol")
}

// sendOddly sends past what asks before a connection, or before ports are known.
func sendOddly(how string, to *net.UDPAddr) error {
	address := &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	if how == "fastopen" {
		return onSocket(unix.SOCK_STREAM, func(fd int) error {
			return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN|unix.MSG_DONTWAIT, address)
		})
	}
	packet, protocol := binary.BigEndian.AppendUint16([]byte{0x77, 0x77}, uint16(to.Port)), unix.IPPROTO_UDP
	packet = append(packet, 0, 9, 0, 0, 'x')
	if how == "piece" { // not the first of a datagram
		head := []byte{0x45, 0, 0, 0, 0, 1, 0, 1, 64, unix.IPPROTO_UDP, 0, 0, 0, 0, 0, 0}
		packet, protocol = slices.Concat(head, address.Addr[:], packet), unix.IPPROTO_RAW
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	return errors.Join(unix.Sendto(fd, packet, 0, address), unix.Close(fd))
}

func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func ping(to string) error {
	network, request := "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
	if strings.Contains(to, ":") {
		network, request = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0}
	}
	c, err := net.Dial(network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	var b [64]byte
	for {
		n, err := c.Read(b[:])
		if err != nil {
			return err
		}
		reply := b[:n]
		if n > 20 && b[0] == 0x45 { // of IPv4 the header is read, too
			reply = b[20:n]
		}
		if n > 0 && (reply[0] == 0 || reply[0] == 129) {
			return nil
		}
	}
}

// timedOut gives every way of having waited too long one name.
func timedOut(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EAGAIN) {
		return unix.ETIMEDOUT
	}
	return err
}

// holdFlow keeps a connection and a flow of datagrams, and says for each line of standard input what using them answers.
func holdFlow() {
	address := os.Getenv("MUSTER_TEST_FLOW")
	tcp, udp := must(net.Dial("tcp", address)), must(net.Dial("udp", address))
	must(0, errors.Join(exchange(tcp), exchange(udp)))
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(errorName(timedOut(exchange(tcp))), errorName(timedOut(exchange(udp))))
	}
}
