// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// harmless is a name that no rule speaks of, as long as the blocked one.
const harmless = "permits.example"

// askHidden sends a question where only the packet shows it.
func askHidden(m []byte, how string) error {
	local, innocent := &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}, question(harmless)
	connected := func(use func(fd int) error) error {
		return onSocket(unix.SOCK_DGRAM, func(fd int) error { return errors.Join(unix.Connect(fd, local), use(fd)) })
	}
	switch how {
	case "second": // of several messages in one call, which is one to the hook of sending
		return connected(func(fd int) error { return sendTwo(fd, innocent, m) })
	case "segments":
		return connected(func(fd int) error {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, len(innocent)); err != nil {
				return err
			}
			return unix.Send(fd, slices.Concat(innocent, innocent, m), 0)
		})
	case "splice":
		return connected(func(fd int) error {
			var pipe [2]int
			if err := unix.Pipe(pipe[:]); err != nil {
				return err
			}
			if _, err := unix.Write(pipe[1], m); err != nil {
				return err
			}
			_, err := unix.Splice(pipe[0], nil, fd, nil, len(m), 0)
			return err
		})
	case "raw":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		if err != nil {
			return err
		}
		head := binary.BigEndian.AppendUint16([]byte{0x77, 0x77, 0, 53}, uint16(len(m)+8))
		return errors.Join(unix.Sendto(fd, slices.Concat(head, []byte{0, 0}, m), 0, local), unix.Close(fd))
	case "stream": // the second message of one send
		return onSocket(unix.SOCK_STREAM, func(fd int) error {
			framed := func(m []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...) }
			return errors.Join(unix.Connect(fd, local), unix.Send(fd, slices.Concat(framed(innocent), framed(m)), 0))
		})
	}
	return errors.New("unknown way")
}

// sendTwo sends two datagrams to one address by one call.
func sendTwo(fd int, first, second []byte) error {
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 53 << 8, Addr: [4]byte{127, 0, 0, 1}}
	type message struct {
		head unix.Msghdr
		_    [8]byte
	}
	var messages [2]message
	var parts [2]unix.Iovec
	for i, m := range [][]byte{first, second} {
		parts[i] = unix.Iovec{Base: &m[0], Len: uint64(len(m))}
		messages[i].head = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to)), Namelen: uint32(unsafe.Sizeof(to)), Iov: &parts[i], Iovlen: 1}
	}
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), 2, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// nameServer notes what arrives at port 53 and answers nothing.
type nameServer struct {
	mu  sync.Mutex
	got []string
}

func listenNames(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{}
	udp := must(net.ListenPacket("udp4", "127.0.0.1:53"))
	tcp := must(net.Listen("tcp4", "127.0.0.1:53"))
	t.Cleanup(func() { must(0, errors.Join(udp.Close(), tcp.Close())) })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, _, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			s.note(string(b[:n]))
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				all, _ := io.ReadAll(c)
				s.note(string(all))
			}()
		}
	}()
	return s
}

func (s *nameServer) note(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, message)
}

// heard says whether a label has arrived within a while.
func (s *nameServer) heard(label string, within time.Duration) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(within); ; {
		s.mu.Lock()
		found := slices.ContainsFunc(s.got, func(m string) bool { return strings.Contains(m, label) })
		s.mu.Unlock()
		select {
		case <-end:
			return found
		case <-tick.C:
			if found {
				return true
			}
		}
	}
}

// TestQueriesOnPackets asks where the hook of sending does not see the name.
func TestQueriesOnPackets(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	server := listenNames(t)
	g := newGuard(t)
	self := must(os.Readlink("/proc/self/exe"))
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit,
		domain(policies.ActionBlock, "blocked.example", self), domain(policies.ActionAudit, "watched.example", self))
	for how, answer := range map[string]string{
		"second": "ok", "segments": "EPERM", "splice": "EPERM", "raw": "EPERM", "stream": "ok", "pieces": "EPERM", "udp": "EACCES",
	} {
		t.Run(how, func(t *testing.T) {
			server.mu.Lock()
			server.got = nil
			server.mu.Unlock()
			g.apply(t, enforce.StepPublish{Ruleset: rs})
			g.taken(t)
			want(t, try(t, "ask watched.example "+how), "ok")
			if !server.heard("watched", 10*time.Second) {
				t.Error("a permitted question did not arrive")
			}
			want(t, g.seen(t), "query watched.example audited-by p00001")
			want(t, try(t, "ask blocked.example "+how), answer)
			if server.heard("blocked", 300*time.Millisecond) {
				t.Error("a blocked question arrived")
			}
			events := g.taken(t)
			if len(events) != 1 || eventLine(events[0]) != "query blocked.example denied by p00000" || events[0].PID == 0 || events[0].Source != self {
				t.Errorf("events %+v", events)
			}
		})
	}
}
