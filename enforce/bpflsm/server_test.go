// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// server is a process that carries out one operation after the other.
type server struct {
	pid int
	in  io.Writer
	out *bufio.Scanner
}

func startServer(t *testing.T, exe string) *server {
	t.Helper()
	c := exec.CommandContext(t.Context(), exe)
	c.Env = []string{probeVariable + "=obey"}
	in, out := startPiped(t, c)
	t.Cleanup(func() { in.Close(); _ = c.Wait() })
	return &server{pid: c.Process.Pid, in: in, out: out}
}

func (s *server) ask(t *testing.T, operation string) string {
	t.Helper()
	if _, err := io.WriteString(s.in, operation+"\n"); err != nil {
		t.Fatal(err)
	}
	if !s.out.Scan() {
		t.Fatalf("the process is gone: %v", s.out.Err())
	}
	return s.out.Text()
}

// obey is the process's side.
func obey() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(errorName(operate(strings.Fields(lines.Text()))))
	}
}
