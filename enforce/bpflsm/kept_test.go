// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
)

// keptSlots are more than USED_DESCRIPTORS, so that some of what a process was judged for is forgotten.
const keptSlots = 12

// keptAt is the number of the descriptor in slot 0.
const keptAt = 100

// keptDescriptor is one that the process of a world has open for reading and writing.
type keptDescriptor struct {
	open bool
	// settled is the publication under which it was last permitted to be used so.
	settled map[string]int
}

// keepDescriptor is the process's side of keep: it opens a file into a slot, in the place of what was there.
func keepDescriptor(slot, path string) error {
	n, err := strconv.Atoi(slot)
	if err != nil {
		return unprepared("slot", err)
	}
	if _, open := kept[slot]; open {
		delete(kept, slot)
		if err := unix.Close(keptAt + n); err != nil {
			return unprepared("close", err)
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Dup3(fd, keptAt+n, unix.O_CLOEXEC), unix.Close(fd)); err != nil {
		return unprepared("duplicate", err)
	}
	kept[slot] = keptAt + n
	return nil
}

// keep has the process open a file and keep the descriptor.
func (w *world) keep() {
	slot, path := w.r.IntN(keptSlots), w.someFile()
	marks := w.marksOf(path)
	operation := fmt.Sprint("fd-keep ", slot, " ", path)
	answer := w.child.ask(w.t, operation)
	w.note(operation + " " + answer)
	w.kept[slot] = keptDescriptor{}
	switch answer {
	case "ok":
		w.kept[slot] = keptDescriptor{open: true, settled: map[string]int{"read": w.publication, "write": w.publication}}
	case "EACCES":
	case "ENOENT", "ENOTDIR", "EISDIR":
		return
	default:
		w.t.Errorf("%s: %s", operation, answer)
	}
	if want := w.decide(path, marks, false); (want.Verdict == enforce.Deny) != (answer == "EACCES") {
		w.t.Errorf("%s: %s, to be decided %+v, marks %v\n%s", operation, answer, want, marks, dump(w.image.ruleset))
	}
}

// use reads or writes through a descriptor that is kept. The first time under a ruleset it is judged by the name that the
// file has at that moment. After that it stays permitted under this ruleset, whatever name the file gets, unless so many
// others were used meanwhile that it is judged anew: then that name decides.
func (w *world) use() {
	slot, how := w.r.IntN(keptSlots), []string{"read", "write"}[w.r.IntN(2)]
	d := w.kept[slot]
	if !d.open {
		return
	}
	path, named := w.keptName(slot)
	marks := w.marksOf(path)
	operation := fmt.Sprint("fd-p", how, " ", slot, " x")
	answer := w.child.ask(w.t, operation)
	w.note(operation + " " + path + " " + answer)
	settled := d.settled[how] == w.publication
	if answer == "ok" {
		d.settled[how] = w.publication
	} else if answer != "EACCES" {
		w.t.Errorf("%s: %s", operation, answer)
	}
	if !named || settled && answer == "ok" {
		w.uses++
		return
	}
	want := w.decide(path, marks, how == "read")
	if (want.Verdict == enforce.Deny) != (answer == "EACCES") {
		w.t.Errorf("%s of %s: %s, to be decided %+v, marks %v\n%s", operation, path, answer, want, marks, dump(w.image.ruleset))
	}
	w.uses++
	w.firstUses++
	if answer == "EACCES" {
		w.usesDenied++
	}
}

// keptName is the name of the file in a slot, and whether the file can be found by it: it may have none any more, or
// something else may be mounted on a directory above it.
func (w *world) keptName(slot int) (path string, named bool) {
	link := fmt.Sprintf("/proc/%d/fd/%d", w.child.pid, keptAt+slot)
	path, err := os.Readlink(link)
	if err != nil {
		w.t.Fatal(err)
	}
	open, err := os.Stat(link)
	if err != nil {
		w.t.Fatal(err)
	}
	found, err := os.Lstat(path)
	return path, err == nil && os.SameFile(open, found)
}
