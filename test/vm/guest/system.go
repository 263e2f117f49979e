// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// system is process 1 of the Debian root, or makes systemd that.
func system() error {
	if option("muster.systemd") != "" {
		return handOver()
	}
	if err := mountAll([]mount{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""},
		{"securityfs", "/sys/kernel/security", "securityfs", 0, ""},
		{"bpf", "/sys/fs/bpf", "bpf", 0, "mode=700"},
		{"tracefs", "/sys/kernel/tracing", "tracefs", 0, ""},
		{"debugfs", "/sys/kernel/debug", "debugfs", 0, ""},
	}); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	pid, err := startFirst()
	if err != nil {
		return err
	}
	reapUntil(pid)
	halt()
	return nil
}

// startFirst starts the agent, or a login shell on the serial port when somebody sits there.
func startFirst() (int, error) {
	args := []string{self, "agent"}
	attr := &syscall.ProcAttr{
		Dir: "/root", Env: environment(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if option("muster.shell") != "" {
		// /dev/console, which process 1 has, cannot be a controlling terminal.
		tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
		if err != nil {
			return 0, err
		}
		defer tty.Close()
		args = []string{"/bin/bash", "-l"}
		attr.Files = []uintptr{tty.Fd(), tty.Fd(), tty.Fd()}
		attr.Sys.Setctty = true
	}
	pid, err := syscall.ForkExec(args[0], args, attr)
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", args[0], err)
	}
	return pid, nil
}

// reapUntil collects every child, orphans of commands among them, until the given one has ended.
func reapUntil(pid int) {
	for {
		got, err := syscall.Wait4(-1, nil, 0, nil)
		if got == pid || errors.Is(err, syscall.ECHILD) {
			return
		}
	}
}

// prepare does the few things that a distribution's start-up would have done.
func prepare() error {
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{"/run/lock", "/run/sshd", "/run/user"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if option("muster.share") != "" {
		if err := (mount{"share", "/share", "virtiofs", 0, ""}).do(); err != nil {
			return err
		}
	}
	if option("muster.shell") != "" {
		if err := takeFiles(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: 65536, Max: 65536}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	return loopbackUp()
}

// loopbackUp makes 127.0.0.1 and ::1 reachable.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// option returns the value of name on the kernel's command line.
func option(name string) string {
	for word := range strings.FieldsSeq(readTrim("/proc/cmdline")) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}
