// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is known is known by every path that leads there; what is not there is nobody's.
func TestSelfKnownPlaces(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	known, other, link := filepath.Join(d, "known"), filepath.Join(d, "other"), filepath.Join(d, "link")
	write(t, known, "", 0o600)
	write(t, other, "", 0o600)
	if err := os.Symlink(known, link); err != nil {
		t.Fatal(err)
	}
	table, err := os.Open(mountTable)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	mounts, err := readMounts(table)
	if err != nil {
		t.Fatal(err)
	}
	at, filesystem, err := locate(mounts, known)
	var s unix.Stat_t
	if err := errors.Join(err, unix.Stat(known, &s)); err != nil || at.inode != s.Ino {
		t.Fatalf("%+v, %v", at, err)
	}
	if filesystem == "overlay" {
		at.inode = 0
	} else if filesystem != "btrfs" && at.device != kernelDevice(s.Dev) {
		t.Errorf("device %x, %x by stat", at.device, kernelDevice(s.Dev))
	}
	places := map[inodeOf]bool{at: true}
	if err := allKnown(places, []string{known, link, filepath.Join(d, "nothing"), known + "/below"}); err != nil {
		t.Error(err)
	}
	var unknown *UnknownPlaceError
	if err := allKnown(places, []string{known, other}); filesystem != "overlay" && (!errors.As(err, &unknown) || unknown.Path != other) {
		t.Errorf("another file: %v", err)
	}
	if err := KnownPlaces(d, []string{other}); err != nil {
		t.Errorf("where nothing is protected: %v", err)
	}
}
