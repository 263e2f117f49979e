// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// probeEnv makes this test binary a process that opens the files it is told to.
const probeEnv = "MUSTER_HOSTILE_PROBE"

func TestMain(m *testing.M) {
	if os.Getenv(probeEnv) != "" {
		probe(os.Stdin, os.Stdout)
		return
	}
	m.Run()
}

// probe answers each path with the errno of opening it for reading.
func probe(in io.Reader, out io.Writer) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fd, err := syscall.Open(lines.Text(), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		var errno syscall.Errno
		if err == nil {
			syscall.Close(fd)
		} else if !errors.As(err, &errno) {
			errno = syscall.EIO
		}
		fmt.Fprintln(out, int(errno))
	}
}

// prober is that process: a child that is neither the agent nor the test.
type prober struct {
	in  io.Writer
	out *bufio.Reader
}

func newProber(t *testing.T) *prober {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), probeEnv+"=1")
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &prober{in: in, out: bufio.NewReader(out)}
}

// try is nil when the child could open the file.
func (p *prober) try(path string) error {
	if _, err := fmt.Fprintln(p.in, path); err != nil {
		return err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return err
	}
	errno, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || errno == 0 {
		return err
	}
	return syscall.Errno(errno)
}
