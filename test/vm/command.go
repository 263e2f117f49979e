// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/muster-fleet/muster/test/vm/wire"
)

// Command is something to run in a machine.
type Command struct {
	// Args are the program and its arguments.
	Args []string
	// Env is added to PATH, HOME, LANG, TERM, USER and MUSTER_IN_VM=1. Dir is the working directory; default "/".
	Env []string
	Dir string
	// UID and GID are who runs it; default root.
	UID, GID uint32
	// Stdin is what it reads; default nothing.
	Stdin io.Reader
	// Stdout and Stderr receive its output as it comes; they must not block for long. Nil collects it in the Result.
	Stdout, Stderr io.Writer
}

// Sh is a Command that bash runs.
func Sh(script string) Command { return Command{Args: []string{"/bin/bash", "-c", script}} }

// Result is how a command ended. Code is its exit code, or 128 + the signal that ended it.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command to its end. A non-zero exit code is not an error. When ctx ends first the command's process group is
// killed. A child that keeps running in the background does not delay the return.
func (m *Machine) Run(ctx context.Context, c Command) (Result, error) {
	var stdout, stderr bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &stdout
	}
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	p, err := m.Start(c)
	if err != nil {
		return Result{Code: -1}, err
	}
	code, err := p.Wait(ctx)
	return Result{Code: code, Stdout: stdout.String(), Stderr: stderr.String()}, err
}

// Process is a command that runs in a machine.
type Process struct {
	m  *Machine
	id uint32
	s  *stream
}

// Start starts a command and does not wait for it.
func (m *Machine) Start(c Command) (*Process, error) {
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.Dir == "" {
		c.Dir = "/"
	}
	req := wire.Request{Args: c.Args, Env: c.Env, Dir: c.Dir, UID: c.UID, GID: c.GID, Stdin: c.Stdin != nil}
	id, s, err := m.open(wire.KindRun, req, c.Stdout, c.Stderr)
	if err != nil {
		return nil, err
	}
	if c.Stdin != nil {
		go func() {
			_, _ = io.Copy(m.out.Stream(id, wire.KindIn), c.Stdin)
			_ = m.out.Send(id, wire.KindIn, nil)
		}()
	}
	return &Process{m: m, id: id, s: s}, nil
}

// killLimit is how long a killed command may take to be gone before the machine is taken for lost.
const killLimit = 20 * time.Second

// Wait waits for the process's end and returns its exit code; when ctx ends first the process is killed.
func (p *Process) Wait(ctx context.Context) (int, error) {
	done := make(chan struct{})
	var code int
	var err error
	go func() {
		code, err = p.m.result(p.s)
		close(done)
	}()
	select {
	case <-done:
		return code, err
	case <-ctx.Done():
	}
	_ = p.Kill()
	lost := time.AfterFunc(killLimit, p.m.cancel)
	defer lost.Stop()
	<-done
	return code, errors.Join(ctx.Err(), err)
}

// Kill sends SIGKILL to the process's group.
func (p *Process) Kill() error { return p.m.out.Send(p.id, wire.KindKill, nil) }

// Put copies files and directories of this machine into the guest: from path here to path there.
func (m *Machine) Put(files map[string]string) error {
	return m.put(func(tw *tar.Writer) error {
		for from, to := range files {
			if err := wire.Pack(tw, from, to); err != nil {
				return err
			}
		}
		return nil
	})
}

// WriteFile writes one file in the guest.
func (m *Machine) WriteFile(path string, content []byte, mode fs.FileMode) error {
	return m.put(func(tw *tar.Writer) error {
		head := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: int64(mode.Perm()), Size: int64(len(content))}
		if err := tw.WriteHeader(head); err != nil {
			return err
		}
		_, err := tw.Write(content)
		return err
	})
}

func (m *Machine) put(pack func(*tar.Writer) error) error {
	id, s, err := m.open(wire.KindPut, wire.Request{}, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(m.out.Stream(id, wire.KindIn))
	err = errors.Join(pack(tw), tw.Close())
	err = errors.Join(err, m.out.Send(id, wire.KindIn, nil))
	_, failed := m.result(s)
	return errors.Join(err, failed)
}

// Get copies files and directories of the guest to this machine: each path keeps its name below dir.
func (m *Machine) Get(dir string, paths ...string) error {
	archive, err := m.archive(paths)
	if err != nil {
		return err
	}
	return wire.Unpack(archive, dir)
}

// ReadFile returns the content of one file in the guest.
func (m *Machine) ReadFile(path string) ([]byte, error) {
	archive, err := m.archive([]string{path})
	if err != nil {
		return nil, err
	}
	tr := tar.NewReader(archive)
	if _, err := tr.Next(); err != nil {
		return nil, &os.PathError{Op: "read in the guest", Path: path, Err: err}
	}
	return io.ReadAll(tr)
}

func (m *Machine) archive(paths []string) (*bytes.Buffer, error) {
	var archive bytes.Buffer
	_, s, err := m.open(wire.KindGet, wire.Request{Paths: paths}, &archive, io.Discard)
	if err != nil {
		return nil, err
	}
	_, err = m.result(s)
	return &archive, err
}
