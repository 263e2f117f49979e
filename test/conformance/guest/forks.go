// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Forks listens to the kernel's process connector, so that the events of a step can be told from everybody
// else's: a fork is in the listener's queue before the child runs its first instruction, so after a step
// has ended its whole process tree is known, the short-lived processes too.
type Forks struct {
	fd   int
	stop int // eventfd that ends the listener

	mu   sync.Mutex
	log  []fork
	lost bool
}

type fork struct{ parent, child int }

// Of the process connector (linux/connector.h, linux/cn_proc.h); messages are in the machine's byte order.
const (
	connectorProc   = 1 // CN_IDX_PROC and CN_VAL_PROC
	listenToProc    = 1 // PROC_CN_MCAST_LISTEN
	eventFork       = 1 // PROC_EVENT_FORK
	connectorHead   = unix.SizeofNlMsghdr + 20
	forkEventLength = connectorHead + 16 + 16
	forksBuffer     = 32 << 20
)

// WatchForks begins to listen.
func WatchForks() (*Forks, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("process connector: %w", err)
	}
	f := &Forks{fd: fd}
	if err := f.subscribe(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("process connector: %w", err)
	}
	go f.listen()
	return f, nil
}

func (f *Forks) subscribe() error {
	if err := unix.SetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, forksBuffer); err != nil {
		return err
	}
	if err := unix.Bind(f.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc, Pid: 0}); err != nil {
		return err
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	f.stop = stop
	order := binary.NativeEndian
	message := order.AppendUint32(nil, connectorHead+4)
	message = order.AppendUint16(message, unix.NLMSG_DONE)
	message = append(message, make([]byte, 6)...) // flags, sequence
	message = order.AppendUint32(message, uint32(os.Getpid()))
	message = order.AppendUint32(message, connectorProc)
	message = order.AppendUint32(message, connectorProc)
	message = append(message, make([]byte, 8)...) // sequence, acknowledgement
	message = order.AppendUint16(message, 4)
	message = append(message, 0, 0)
	message = order.AppendUint32(message, listenToProc)
	return unix.Sendto(f.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// Close stops listening.
func (f *Forks) Close() {
	_, _ = unix.Write(f.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (f *Forks) listen() {
	defer unix.Close(f.fd)
	polls := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}, {Fd: int32(f.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if polls[1].Revents != 0 {
			unix.Close(f.stop)
			return
		}
		f.drain()
	}
}

// drain takes everything that is in the queue now.
func (f *Forks) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	var buffer [4096]byte
	for {
		n, _, err := unix.Recvfrom(f.fd, buffer[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			f.lost = true
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		default:
			f.note(buffer[:n])
		}
	}
}

// note keeps the fork that a message tells of; threads are no processes of their own.
func (f *Forks) note(message []byte) {
	order := binary.NativeEndian
	if len(message) < forkEventLength || order.Uint32(message[connectorHead:]) != eventFork {
		return
	}
	data := message[connectorHead+16:]
	parent := int(order.Uint32(data[4:]))
	child, group := int(order.Uint32(data[8:])), int(order.Uint32(data[12:]))
	if child == group {
		f.log = append(f.log, fork{parent, child})
	}
}

// errForksLost means that forks were missed, so that a step's processes are not known.
var errForksLost = errors.New("the kernel's process events came faster than they were read")

// Take returns every fork since the last call.
func (f *Forks) take() ([]fork, error) {
	f.drain()
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	if f.lost {
		f.lost = false
		return log, errForksLost
	}
	return log, nil
}

// family is a growing set of processes.
type family map[int]bool

// grow adds the children of members. A number that was given to a stranger's child is a member's no more.
func (m family) grow(log []fork) {
	for _, f := range log {
		if m[f.parent] {
			m[f.child] = true
		} else {
			delete(m, f.child)
		}
	}
}
