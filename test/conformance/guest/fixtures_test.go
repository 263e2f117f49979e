// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func checkFixtures(t *testing.T, root string) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("giving files away needs root")
		}
		t.Skip("giving files away needs root")
	}
	f := &Fixtures{Root: root, Probe: []byte("probe"), Dyntool: []byte("dyntool")}
	for range 2 {
		if err := f.Fresh(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(root + "/new"); err == nil {
			t.Error("what is new was not removed")
		}
		if err := os.WriteFile(root+"/new", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		"bin/probe": 0o777, "bin/src-a": 0o777, "bin/src-b": 0o777, "bin/tool": 0o777, "bin/tool2": 0o777,
		"bin/tool.sh": 0o777, "bin/dyntool": 0o777, "dir/f1": 0o666, "dir/f2": 0o666, "dir/sub/f3": 0o666,
		"dir/sub/tool3": 0o777, "secret.txt": 0o666, "user1/hello": 0o777, "user1/own.txt": 0o666,
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if target, err := os.Readlink(root + "/link-to-secret"); err != nil || target != "secret.txt" {
		t.Errorf("link: %q %v", target, err)
	}
	checkDepths(t, root)
}

func checkDepths(t *testing.T, root string) {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "f" && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 2 {
		t.Fatalf("%d files called f: %v", len(found), err)
	}
	deep, long := found[0], found[1]
	if n := strings.Count(strings.TrimPrefix(deep, root+"/deep/"), "/"); n != deepLevels {
		t.Errorf("%d directories deep", n)
	}
	if len(long) != longPath {
		t.Errorf("a path of %d bytes", len(long))
	}
}
