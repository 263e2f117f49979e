// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Of the fixtures: the root, and user1.
const (
	fixtureRoot = "/opt/t"
	user1       = 1001
	deepLevels  = 60
	longPath    = 1000
)

// programs are the copies of the probe.
var programs = []string{"bin/probe", "bin/src-a", "bin/src-b", "bin/tool", "bin/tool2", "dir/sub/tool3", "user1/hello"}

// Fixtures makes the files that every scenario finds.
type Fixtures struct {
	Root    string // normally /opt/t
	Probe   []byte
	Dyntool []byte
}

// Fresh removes everything and makes it anew. Modes are set past the umask: where permission bits must not
// decide, everybody may do everything.
func (f *Fixtures) Fresh() error {
	if err := os.RemoveAll(f.Root); err != nil {
		return fmt.Errorf("clearing the fixtures: %w", err)
	}
	m := &maker{root: f.Root}
	for _, dir := range []string{"", "bin", "dir", "dir/sub", "user1", "deep", "long"} {
		m.dir(dir)
	}
	for _, name := range programs {
		m.file(name, f.Probe, 0o777)
	}
	m.file("bin/dyntool", f.Dyntool, 0o777)
	m.file("bin/tool.sh", []byte("#!/bin/bash\necho hello\n"), 0o777)
	for _, name := range []string{"dir/f1", "dir/f2", "dir/sub/f3", "secret.txt", "user1/own.txt"} {
		m.file(name, []byte("content of "+name+"\n"), 0o666)
	}
	m.deep()
	m.long()
	m.symlink("secret.txt", "link-to-secret")
	for _, name := range []string{"user1", "user1/hello", "user1/own.txt"} {
		m.give(name)
	}
	if m.err != nil {
		return fmt.Errorf("making the fixtures: %w", m.err)
	}
	return nil
}

// maker remembers the first error.
type maker struct {
	root string
	err  error
}

func (m *maker) path(name string) string { return filepath.Join(m.root, name) }

func (m *maker) dir(name string) {
	if m.err == nil {
		m.err = os.MkdirAll(m.path(name), 0o777)
	}
	if m.err == nil {
		m.err = os.Chmod(m.path(name), 0o777)
	}
}

func (m *maker) file(name string, content []byte, mode fs.FileMode) {
	if m.err == nil {
		m.err = os.WriteFile(m.path(name), content, mode)
	}
	if m.err == nil {
		m.err = os.Chmod(m.path(name), mode)
	}
}

func (m *maker) symlink(target, name string) {
	if m.err == nil {
		m.err = os.Symlink(target, m.path(name))
	}
}

func (m *maker) give(name string) {
	if m.err == nil {
		m.err = os.Chown(m.path(name), user1, user1)
	}
}

func (m *maker) deep() {
	at := "deep"
	for i := range deepLevels {
		at = filepath.Join(at, fmt.Sprintf("d%02d", i+1))
		m.dir(at)
	}
	m.file(filepath.Join(at, "f"), []byte("deep\n"), 0o666)
}

// long makes a file f whose whole path has exactly longPath bytes.
func (m *maker) long() {
	at := m.path("long")
	for left := longPath - len(at) - len("/f"); left > 0; left = longPath - len(at) - len("/f") {
		n := min(left-1, 200) // a slash and a name
		if left-1-n == 1 {
			n-- // one byte would be left over, too few for another slash and name
		}
		at += "/" + strings.Repeat("l", n)
		m.dir(strings.TrimPrefix(at, m.root))
	}
	m.file(strings.TrimPrefix(at, m.root)+"/f", []byte("long\n"), 0o666)
}

// AddUser makes sure that user1 exists, as the scenarios call it.
func AddUser() error {
	for _, line := range []struct{ file, prefix, text string }{
		{"/etc/passwd", "user1:", "user1:x:1001:1001::/:/bin/bash\n"},
		{"/etc/group", "user1:", "user1:x:1001:\n"},
	} {
		have, err := os.ReadFile(line.file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("user1: %w", err)
		}
		if strings.Contains("\n"+string(have), "\n"+line.prefix) {
			continue
		}
		if err := os.WriteFile(line.file, append(have, line.text...), 0o644); err != nil {
			return fmt.Errorf("user1: %w", err)
		}
	}
	return nil
}
