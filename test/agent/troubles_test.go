// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// condition is [root], for what only root can do; where every test has to run it has to be root.
func condition(word string) (bool, error) {
	root := os.Geteuid() == 0
	switch {
	case word != "root":
		return false, fmt.Errorf("unknown condition %q", word)
	case !root && os.Getenv("CI") != "":
		return false, errors.New("this test takes root")
	}
	return root, nil
}

// smallDisk mounts a small file system, which is easily filled.
func smallDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=0700"))
	ts.Defer(func() { ts.Check(unix.Unmount(dir, unix.MNT_DETACH)) })
}

// told waits for a text in the report that some host pushed.
func told(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		refs, err := exec.Command("git", "-C", ts.MkAbs(args[0]), "for-each-ref", "--format=%(refname)", "refs/muster/hosts").Output()
		ts.Check(err)
		for ref := range strings.FieldsSeq(string(refs)) {
			report, err := exec.Command("git", "-C", ts.MkAbs(args[0]), "show", ref+":report.json").Output()
			if err == nil && strings.Contains(string(report), args[1]) {
				return
			}
		}
		select {
		case <-deadline:
			ts.Fatalf("no report says %q", args[1])
		case <-tick.C:
		}
	}
}

// knocks is the key under which a story keeps who connected to its deaf server.
type knocks struct{}

// deaf is a server that takes every connection and says nothing.
func deaf(ts *testscript.TestScript, _ bool, args []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
	came := make(chan net.Conn, 64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			came <- conn // kept open, unread
		}
	}()
	*ts.Value(knocks{}).(*<-chan net.Conn) = came
	ts.Setenv(args[0], listener.Addr().String())
}

func connected(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-*ts.Value(knocks{}).(*<-chan net.Conn):
	case <-time.After(time.Minute):
		ts.Fatalf("nobody connected")
	}
}
