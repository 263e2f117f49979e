// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/policies"
)

// token is what the protected files hold and the blocked program prints.
const token = "open-sesame"

// The unprivileged user.
const user = 1001

const page = 4096

// Policies of every way; D is the world's directory.
const documents = `
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-files}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths:
      - {path: D/exact/secret}
      - {path: D/ro/file, readOnly: true}
      - {path: D/only/f}
      - {path: D/exact/long}
      - {path: D/exact/pipe}
      - {path: D/exact/zero}
    matchDirectories:
      - {dir: D/tree/, recursive: true}
    matchPatterns:
      - {pattern: D/keys/*.key}
  process:
    matchPaths:
      - {path: D/bin/tool}
      - {path: D/bin/script}
  action: Block
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-source}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths:
      - {path: D/only/f, fromSource: [{path: D/bin/updater}]}
  action: Allow
`

// nothing are policies that deny nothing and need the same programs as documents. Under them the controls are tried: without
// any rules the programs would go, and take their time to come back, and with a Block trees that are mounted nowhere are
// denied, whatever the Block names.
const nothing = `
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-nothing}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths: [{path: /nothing/there}]
  process:
    matchPaths: [{path: /nothing/there}]
  action: Audit
`

// world is the files of one attempt.
type world struct {
	dir  string
	hold *os.File // the read-only file, whatever name it has later
	was  string   // its state before the attempt
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	for name, from := range map[string]string{"bin/tool": "/bin/echo", "bin/updater": "/bin/cat", "bin/other": "/bin/cat", "prog/run": "/bin/echo"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(dir, name), text)
	}
	for _, name := range []string{"exact/secret", "only/f", "tree/sub/secret", "keys/secret.key"} {
		place(t, filepath.Join(dir, name), []byte(token+"\n"))
	}
	place(t, dir+"/exact/long", append(make([]byte, page), token+strings.Repeat("\n", page-len(token))...))
	place(t, dir+"/tree/listed/"+token, nil)
	place(t, dir+"/bin/script", []byte("#!/bin/sh\necho "+token+"\necho "+token+" >>"+dir+"/w/got\n"))
	for name, kind := range map[string]uint32{"pipe": unix.S_IFIFO, "zero": unix.S_IFCHR} {
		for _, at := range []string{"/exact/", "/tree/"} {
			if err := errors.Join(unix.Mknod(dir+at+name, kind, int(unix.Mkdev(1, 5))), os.Chmod(dir+at+name, 0o777)); err != nil {
				t.Fatal(err)
			}
		}
	}
	place(t, dir+"/ro/file", []byte("as it was\n"))
	place(t, dir+"/w/mine", []byte("mine\n"))
	if err := os.Chown(dir+"/w/mine", user, user); err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir}
	var err error
	if w.hold, err = os.Open(dir + "/ro/file"); err != nil {
		t.Fatal(err)
	}
	w.was = w.state(t)
	return w
}

// remove takes it away; mounts that an attempt has left keep their directories.
func (w *world) remove(t *testing.T) {
	t.Helper()
	if err := w.hold.Close(); err != nil {
		t.Error(err)
	}
	_ = os.RemoveAll(w.dir)
}

// place writes a file that discretionary access control lets everybody do everything with.
func place(t *testing.T, path string, text []byte) {
	t.Helper()
	for dir := filepath.Dir(path); dir != "/opt"; dir = filepath.Dir(dir) {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
}

// state is everything about the read-only file that nobody may change: what it holds, its attributes, and that its name
// is still its own.
func (w *world) state(t *testing.T) string {
	t.Helper()
	text := make([]byte, 64)
	n, err := w.hold.ReadAt(text, 0)
	var st, named unix.Stat_t
	err = errors.Join(unix.Fstat(int(w.hold.Fd()), &st), ignoreEOF(err))
	if err != nil {
		t.Fatal(err)
	}
	mine := unix.Stat(w.dir+"/ro/file", &named) == nil && named.Ino == st.Ino
	names := make([]byte, 256)
	size, _ := unix.Flistxattr(int(w.hold.Fd()), names)
	flags, err := unix.IoctlGetInt(int(w.hold.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%q %d %o %d %d links %d own name %t attributes %q flags %x time %d", text[:n], st.Size, st.Mode, st.Uid, st.Gid,
		st.Nlink, mine, names[:max(size, 0)], flags, st.Mtim.Nano())
}

func ignoreEOF(err error) error {
	if err != nil && err.Error() == "EOF" {
		return nil
	}
	return err
}

// gotRound says what an attempt came to; "" when it was held.
func (w *world) gotRound(t *testing.T, output []byte) string {
	t.Helper()
	if bytes.Contains(output, []byte(token)) {
		return "the contents, or a run"
	}
	if now := w.state(t); now != w.was {
		return "a change: " + w.was + " became " + now
	}
	return ""
}

// engine is the real backend.
type engine struct {
	*bpflsm.Backend
	worlds int
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	b, err := bpflsm.New(bpflsm.Config{Root: "/sys/fs/bpf/muster-evade", RingBytes: 1 << 18})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Events(ctx, func(enforce.Event) {}) }()
	t.Cleanup(func() {
		err := b.Apply(context.Background(), enforce.StepDetach{})
		cancel()
		if err := errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
	})
	e := &engine{Backend: b}
	e.apply(t, enforce.StepAttach{Reason: "test"})
	return e
}

func (e *engine) apply(t *testing.T, step enforce.Step) {
	t.Helper()
	if err := e.Apply(t.Context(), step); err != nil {
		t.Fatalf("%T: %+v", step, err)
	}
}

// publish puts the policies in force, with more beside those of every way.
func (e *engine) publish(t *testing.T, dir, more string) {
	t.Helper()
	e.publishText(t, strings.ReplaceAll(documents+more, "D/", dir+"/"))
}

// clear puts policies in force that deny nothing.
func (e *engine) clear(t *testing.T) {
	t.Helper()
	e.publishText(t, nothing)
}

func (e *engine) publishText(t *testing.T, text string) {
	t.Helper()
	list, err := policies.ParseDocument("evade.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rs, gaps := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Policies: list, Capabilities: e.Capabilities(),
		Postures: enforce.Postures{File: enforce.PostureAudit, Network: enforce.PostureAudit, Capabilities: enforce.PostureAudit},
	})
	if len(gaps) > 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	e.apply(t, enforce.StepPublish{Ruleset: rs})
}
