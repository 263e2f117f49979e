// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/test/vm/wire"
)

// A command that has ended may leave children that hold its output open; they get this long to finish writing.
const outputDelay = 500 * time.Millisecond

// run carries out one command. The code is the command's own, or 128 + the signal that ended it.
func (s *server) run(id uint32, st *stream, req wire.Request) (int, error) {
	if len(req.Args) == 0 {
		return -1, errors.New("no command")
	}
	path, err := exec.LookPath(req.Args[0])
	if err != nil {
		return -1, err
	}
	cmd := &exec.Cmd{Path: path, Args: req.Args, Env: append(environment(), req.Env...), Dir: req.Dir}
	cmd.WaitDelay = outputDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if req.UID != 0 || req.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: req.UID, Gid: req.GID}
	}
	cmd.Stdout, cmd.Stderr = s.out.Stream(id, wire.KindOut), s.out.Stream(id, wire.KindErr)
	var input io.WriteCloser
	if req.Stdin {
		if input, err = cmd.StdinPipe(); err != nil {
			return -1, err
		}
	}
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	group := cmd.Process.Pid
	st.onKill(func() { _ = syscall.Kill(-group, syscall.SIGKILL) })
	if input != nil {
		go func() {
			_, _ = io.Copy(input, st.in)
			input.Close()
		}()
	}
	err = cmd.Wait()
	st.onKill(nil)
	st.in.Close()
	return exitCode(cmd, err)
}

func exitCode(cmd *exec.Cmd, err error) (int, error) {
	if cmd.ProcessState == nil {
		return -1, err
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return -1, err
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	default:
		return status.ExitStatus(), nil
	}
}
