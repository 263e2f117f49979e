// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOwnership(t *testing.T) {
	t.Parallel()
	const stranger = 65534
	for name, c := range map[string]struct {
		spoil func(t *testing.T, etc string) error // etc/muster/file, etc/link → muster/file, etc/way → muster
		want  string                               // in the error, "" for none
	}{
		"as it should be": {func(*testing.T, string) error { return nil }, ""},
		"file's mode":     {func(_ *testing.T, etc string) error { return os.Chmod(etc+"/muster/file", 0o664) }, "muster/file could be changed by others: its mode is 0664: chmod go-w"},
		"directory's mode": {func(_ *testing.T, etc string) error {
			return os.Chmod(etc+"/muster", 0o777)
		}, "its mode is 0777"},
		"a sticky directory": {func(_ *testing.T, etc string) error { return os.Chmod(etc+"/muster", 0o777|os.ModeSticky) }, ""},
		"a directory above":  {func(_ *testing.T, etc string) error { return os.Chmod(etc, 0o775) }, "its mode is 0775"},
		"file's owner":       {func(t *testing.T, etc string) error { return chown(t, etc+"/muster/file", stranger) }, "belongs to user 65534: chown root"},
		"directory's owner":  {func(t *testing.T, etc string) error { return chown(t, etc+"/muster", stranger) }, "belongs to user 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etc := filepath.Join(t.TempDir(), "etc")
			for _, err := range []error{
				os.MkdirAll(etc+"/muster", 0o755), os.WriteFile(etc+"/muster/file", nil, 0o644),
				os.Symlink("muster/file", etc+"/link"), os.Symlink(etc+"/muster", etc+"/way"), c.spoil(t, etc),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range []string{etc + "/muster/file", etc + "/link", etc + "/way/file"} {
				err := checkOwnership(path)
				if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, errUnsafeFile) || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%s: %v, wanted %q", path, err, c.want)
				}
			}
		})
	}
	loop := t.TempDir() + "/loop"
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if err := checkOwnership(loop); err == nil {
		t.Error("a link to itself passes")
	}
	if err := checkOwnership(t.TempDir() + "/nothing/there"); err != nil {
		t.Error(err)
	}
}

// chown gives a file away, which root alone can.
func chown(t *testing.T, path string, uid int) error {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("root is needed to give a file away")
		}
		t.Skip("root is needed to give a file away")
	}
	return os.Chown(path, uid, -1)
}
