// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Listen makes the socket, mode 0600, in a directory that is made if it is not there. A socket that nobody
// answers on is left over from an agent that was killed and is replaced; a living one is an error.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, &Error{Name: "running", Message: fmt.Sprintf("another agent answers on %s", path), Advice: "stop it first, or give this one a socket of its own"}
	}
	// A mistyped path must not cost the file that is there.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, &Error{Name: "socket", Message: path + " is there already and is no socket", Advice: "give the socket a path of its own"}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return listener, nil
}

// peerListener lets in root and the agent's own user, and so many at a time.
type peerListener struct {
	net.Listener
	log   *slog.Logger
	slots chan struct{}
}

// Accept returns the next connection of somebody who may ask.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // http.Server compares it
		}
		uid, err := peerUID(conn)
		if err != nil || (uid != 0 && uid != uint32(os.Geteuid())) {
			l.log.Warn("control socket: refused", "uid", uid, "error", err)
			_ = conn.Close()
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &slotConn{Conn: conn, release: func() { <-l.slots }}, nil
		default:
			l.log.Warn("control socket: too many clients", "limit", cap(l.slots))
			_ = conn.Close()
		}
	}
}

// peerUID asks the kernel who connected; only a unix socket has an answer.
func peerUID(conn net.Conn) (uint32, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("peer: %w", err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("peer: %w", credErr)
	}
	return cred.Uid, nil
}

// slotConn gives its slot back once.
type slotConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close closes the connection and frees the slot.
func (c *slotConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close() //nolint:wrapcheck // passed through
}
