// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// startShare serves dir on a unix socket. QEMU connects to it once and the server ends with that connection.
func startShare(ctx context.Context, dir, socket string) (*share, error) {
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
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
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
