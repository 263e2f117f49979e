// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
)

// Serve answers what the scenarios talk to: echo on 127.0.0.1:7 and names on 127.0.0.1:53, both over TCP
// and UDP, until ctx ends.
func Serve(ctx context.Context) error {
	for _, s := range []struct {
		address string
		packet  func([]byte) []byte
		stream  func(net.Conn)
	}{
		{"127.0.0.1:7", func(b []byte) []byte { return b }, func(c net.Conn) { _, _ = io.Copy(c, c) }},
		{"127.0.0.1:53", answerName, answerNames},
	} {
		if err := servePackets(ctx, s.address, s.packet); err != nil {
			return err
		}
		if err := serveStreams(ctx, s.address, s.stream); err != nil {
			return err
		}
	}
	return nil
}

func servePackets(ctx context.Context, address string, answer func([]byte) []byte) error {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return fmt.Errorf("serving udp %s: %w", address, err)
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if reply := answer(buffer[:n]); err == nil && reply != nil {
				_, _ = conn.WriteTo(reply, from) // a client may be gone
			}
		}
	}()
	return nil
}

func serveStreams(ctx context.Context, address string, serve func(net.Conn)) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp4", address)
	if err != nil {
		return fmt.Errorf("serving tcp %s: %w", address, err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return nil
}

// answerName answers a query of one question with the address 192.0.2.53, whatever the name.
func answerName(query []byte) []byte {
	const head = 12
	if len(query) < head+5 || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	end := head
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	if end+5 > len(query) {
		return nil
	}
	reply := append([]byte{}, query[:end+5]...)
	reply[2], reply[3] = 0x81, 0x80 // an answer, without error
	copy(reply[6:head], []byte{0, 1, 0, 0, 0, 0})
	return append(reply, 0xc0, head, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53)
}

func answerNames(conn net.Conn) {
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := answerName(query)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// dummyDevice is the name that scenarios may remove the device by.
const dummyDevice = "muster0"

// Network makes the loopback device and the dummy device for 192.0.2.0/24 be as every scenario finds them.
func Network(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("network: %w: %s", err, out)
	}
	if _, err := net.InterfaceByName(dummyDevice); err == nil {
		return nil
	}
	for _, args := range [][]string{
		{"link", "add", dummyDevice, "type", "dummy"},
		{"addr", "add", "192.0.2.1/24", "dev", dummyDevice},
		{"link", "set", dummyDevice, "up"},
	} {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("network: ip %v: %w: %s", args, err, out)
		}
	}
	return nil
}

// kernelSettings are what a scenario must not depend on.
var kernelSettings = map[string]string{
	"kernel/io_uring_disabled":         "0",
	"kernel/unprivileged_userns_clone": "1",
	"kernel/perf_event_paranoid":       "2",
	"kernel/yama/ptrace_scope":         "0",
	"net/ipv6/conf/all/disable_ipv6":   "0",
	"fs/protected_hardlinks":           "0",
}

// Settle writes the kernel's settings; one that this kernel does not have needs no value.
func Settle() error {
	for name, value := range kernelSettings {
		err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}
