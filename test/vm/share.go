// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// virtiofsd is where Debian keeps it: not on the PATH.
const virtiofsd = "/usr/lib/qemu/virtiofsd"

// share is a running virtiofsd.
type share struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startShare serves dir on a unix socket. QEMU connects to it once and the server ends with that connection; it talks
// much on its stderr, which goes where the console goes.
func startShare(ctx context.Context, dir, socket string, complaints io.Writer) (*share, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Listening here and handing the socket over leaves no moment in which QEMU finds nobody.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	file, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, virtiofsd, "--fd=3", "-o", "source="+dir, "-o", "cache=auto", "-o", "sandbox=chroot")
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	cmd.Stderr = complaints
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("sharing %s: %w", dir, err)
	}
	s := &share{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = cmd.Wait()
	}()
	return s, nil
}
