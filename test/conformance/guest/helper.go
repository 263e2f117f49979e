// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package guest carries conformance scenarios out inside a virtual machine: it prepares the machine, runs
// the real musterd on real signed releases, has the resident helper run each step in the subject, and asks
// the agent for its gaps, refusals and events. What was seen is judged by package conformance.
//
// It changes the machine it runs in at every turn (files under /opt/t and /etc/muster, network devices,
// kernel policy) and therefore refuses to run outside the lab.
package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Helper is the resident helper of a subject: started before the policies, it forks and executes what a
// step asks for, so that no allow-list has to name the runner.
type Helper struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     io.ReadCloser
	cgroup  *os.File
}

// errHelper is the kind of every failure of the helper itself.
var errHelper = errors.New("resident helper")

// StartHelper starts the program. When cgroup names a directory of a cgroup v2 hierarchy, the helper and
// all that it starts live in that group, and Stop leaves nothing of it alive.
func StartHelper(program, cgroup string) (*Helper, error) {
	h := &Helper{command: exec.Command(program)}
	h.command.Dir = "/"
	h.command.Env = []string{}
	h.command.Stderr = os.Stderr
	h.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var err error
	if cgroup != "" {
		if err := os.MkdirAll(cgroup, 0o755); err != nil {
			return nil, fmt.Errorf("%w: %w", errHelper, err)
		}
		if h.cgroup, err = os.Open(cgroup); err != nil {
			return nil, fmt.Errorf("%w: %w", errHelper, err)
		}
		h.command.SysProcAttr.UseCgroupFD = true
		h.command.SysProcAttr.CgroupFD = int(h.cgroup.Fd())
	}
	if h.in, err = h.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("%w: %w", errHelper, err)
	}
	if h.out, err = h.command.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("%w: %w", errHelper, err)
	}
	if err := h.command.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errHelper, err)
	}
	return h, nil
}

// Pid is the helper's own process.
func (h *Helper) Pid() int { return h.command.Process.Pid }

// Stop ends the helper and, when it has a cgroup, everything that it started and left behind.
func (h *Helper) Stop(ctx context.Context) error {
	h.in.Close()
	err := h.killAll(ctx)
	_ = h.command.Process.Kill() // it may have ended with its standard input
	_ = h.command.Wait()         // killed: its status says nothing
	if h.cgroup != nil {
		h.cgroup.Close()
	}
	return err
}

func (h *Helper) killAll(ctx context.Context) error {
	if h.cgroup == nil {
		return nil
	}
	return until(ctx, func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(h.cgroup.Name(), "cgroup.procs"))
		if err != nil {
			return false, fmt.Errorf("%w: processes left behind: %w", errHelper, err)
		}
		left := 0
		for line := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(line)
			if err != nil || pid <= 1 || pid == os.Getpid() {
				continue
			}
			left++
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone already
			if pid == h.Pid() {
				left-- // a zombie until Wait
			}
		}
		return left == 0, nil
	})
}

func (h *Helper) send(fields ...string) error {
	text := strings.Join(fields, "\x00") + "\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	if _, err := h.in.Write(append(message, text...)); err != nil {
		return fmt.Errorf("%w: asking: %w", errHelper, err)
	}
	return nil
}

func (h *Helper) receive(want string) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(h.out, head[:]); err != nil {
		return "", fmt.Errorf("%w: no answer: %w", errHelper, err)
	}
	text := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(h.out, text); err != nil {
		return "", fmt.Errorf("%w: half an answer: %w", errHelper, err)
	}
	word, rest, _ := strings.Cut(strings.TrimSuffix(string(text), "\x00"), "\x00")
	if word != want {
		return "", fmt.Errorf("%w: %s: %s", errHelper, word, rest)
	}
	return rest, nil
}

// Terminals makes n terminals for later orders.
func (h *Helper) Terminals(n int) error {
	if err := h.send("ttys", strconv.Itoa(n)); err != nil {
		return err
	}
	_, err := h.receive("ready")
	return err
}

// Hold opens a file for writing and returns the number to pass it on by.
func (h *Helper) Hold(path string) (int, error) {
	if err := h.send("open", path); err != nil {
		return 0, err
	}
	number, err := h.receive("opened")
	if err != nil {
		return 0, fmt.Errorf("holding %s: %w", path, err)
	}
	return strconv.Atoi(number)
}

// Order is something to run.
type Order struct {
	UID, GID int
	Terminal bool
	Held     int // number of a held file, -1 for none
	Argv     []string
}

// Result is how an order ended.
type Result struct {
	Pid    int
	Code   int // exit status, or 128 and the signal's number
	Output string
}

// notStarted is the status of an order whose program the helper could not start.
const notStarted = 126

// Run carries out one order. When ctx ends first the process is killed.
func (h *Helper) Run(ctx context.Context, o Order) (Result, error) {
	terminal := "0"
	if o.Terminal {
		terminal = "1"
	}
	fields := []string{"run", strconv.Itoa(o.UID), strconv.Itoa(o.GID), terminal, strconv.Itoa(o.Held)}
	if err := h.send(append(fields, o.Argv...)...); err != nil {
		return Result{}, err
	}
	started, err := h.receive("started")
	if err != nil {
		return Result{}, err
	}
	pid, err := strconv.Atoi(started)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", errHelper, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	defer stop()
	ended, err := h.receive("exit")
	if err != nil {
		return Result{}, err
	}
	status, output, _ := strings.Cut(ended, " ")
	code, err := strconv.Atoi(status)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", errHelper, err)
	}
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("the step did not end in time: %s", output)
	}
	if code == notStarted && strings.HasPrefix(output, "helper: ") {
		return Result{}, fmt.Errorf("%s", strings.TrimSpace(output))
	}
	return Result{Pid: pid, Code: code, Output: output}, nil
}
