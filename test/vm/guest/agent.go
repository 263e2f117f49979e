// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/test/vm/wire"
)

// agent serves the host until the port closes.
func agent() error {
	port, err := openPort(20 * time.Second)
	if err != nil {
		return err
	}
	if option("muster.systemd") == "" {
		if err := takeFiles(); err != nil {
			return err
		}
	}
	s := &server{out: wire.NewWriter(port), streams: map[uint32]*stream{}}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	hello := wire.Hello{Release: unix.ByteSliceToString(uts.Release[:]), LSM: readTrim("/sys/kernel/security/lsm")}
	if err := s.out.SendJSON(0, wire.KindHello, hello); err != nil {
		return err
	}
	for {
		f, err := wire.Read(port)
		if err != nil {
			return err
		}
		s.handle(f)
	}
}

// takeFiles unpacks the third disk, if there is one: a tar archive of Options.Files.
func takeFiles() error {
	if option("muster.files") == "" {
		return nil
	}
	if err := waitFor("/dev/vdc", 20*time.Second); err != nil {
		return err
	}
	disk, err := os.Open("/dev/vdc")
	if err != nil {
		return err
	}
	defer disk.Close()
	return wire.Unpack(bufio.NewReaderSize(disk, 1<<20), "/")
}

// openPort finds the virtio-serial port by its name; without udev there is no link in /dev.
func openPort(limit time.Duration) (*os.File, error) {
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if readTrim(name) == wire.Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			return nil, errors.New("no virtio-serial port of the lab")
		}
	}
}

type server struct {
	out     *wire.Writer
	mu      sync.Mutex
	streams map[uint32]*stream
}

// stream is one open request: its input, and how to end it.
type stream struct {
	in   *wire.Queue
	mu   sync.Mutex
	kill func()
}

func (s *stream) onKill(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill = f
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kill != nil {
		s.kill()
	}
}

func (s *server) handle(f wire.Frame) {
	switch f.Kind {
	case wire.KindRun:
		s.open(f, s.run)
	case wire.KindPut:
		s.open(f, s.put)
	case wire.KindGet:
		s.open(f, s.get)
	case wire.KindIn:
		if st := s.find(f.Stream); st != nil {
			if len(f.Payload) == 0 {
				st.in.Close()
				return
			}
			st.in.Push(f.Payload)
		}
	case wire.KindKill:
		if st := s.find(f.Stream); st != nil {
			st.end()
		}
	default:
		fmt.Fprintf(os.Stderr, "guest: unexpected frame of kind %d\n", f.Kind)
	}
}

func (s *server) find(id uint32) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// open starts a request in its own goroutine and sends its Exit.
func (s *server) open(f wire.Frame, do func(uint32, *stream, wire.Request) (int, error)) {
	var req wire.Request
	if err := json.Unmarshal(f.Payload, &req); err != nil {
		_ = s.out.SendJSON(f.Stream, wire.KindExit, wire.Exit{Code: -1, Error: err.Error()})
		return
	}
	st := &stream{in: wire.NewQueue()}
	s.mu.Lock()
	s.streams[f.Stream] = st
	s.mu.Unlock()
	go func() {
		code, err := do(f.Stream, st, req)
		s.mu.Lock()
		delete(s.streams, f.Stream)
		s.mu.Unlock()
		exit := wire.Exit{Code: code}
		if err != nil {
			exit.Error = err.Error()
		}
		_ = s.out.SendJSON(f.Stream, wire.KindExit, exit)
	}()
}

func (s *server) put(_ uint32, st *stream, _ wire.Request) (int, error) {
	return 0, wire.Unpack(st.in, "/")
}

func (s *server) get(id uint32, _ *stream, req wire.Request) (int, error) {
	tw := tar.NewWriter(s.out.Stream(id, wire.KindOut))
	for _, path := range req.Paths {
		if err := wire.Pack(tw, path, path); err != nil {
			return 0, err
		}
	}
	return 0, tw.Close()
}
