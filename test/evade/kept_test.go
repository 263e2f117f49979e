// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func (r result) line() string {
	return strings.Join([]string{r.Group, r.Way, r.Target, r.Caller, r.Outcome, r.Limit}, "\t")
}

// write leaves the results in a directory, by the kernel that this runs on. Where the directory is not there, nobody asked.
func (list results) write(dir, suffix string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release := unix.ByteSliceToString(name.Release[:])
	return os.WriteFile(filepath.Join(dir, regexp.MustCompile(`^\d+\.\d+`).FindString(release)+suffix), []byte(list.text(release)), 0o644)
}

func (list results) text(release string) string {
	text := "# " + release + "\n"
	for _, r := range list {
		text += r.line() + "\n"
	}
	return text
}

// What a run is called that was of all ways, and one of some.
const (
	wholeSuffix = ".txt"
	againSuffix = ".again"
)

// adopt takes over what runs have left, and writes the page.
func adopt(share string) error {
	whole, err := filepath.Glob(share + "/*" + wholeSuffix)
	if err != nil {
		return err
	}
	again, err := filepath.Glob(share + "/*" + againSuffix)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	for _, file := range whole {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(kept, filepath.Base(file)), text, 0o644); err != nil {
			return err
		}
	}
	for _, file := range again {
		if err := replace(file, filepath.Join(kept, strings.TrimSuffix(filepath.Base(file), againSuffix)+wholeSuffix)); err != nil {
			return err
		}
	}
	if len(whole)+len(again) == 0 {
		return nil
	}
	page, err := render(kept)
	if err != nil {
		return err
	}
	return os.WriteFile(pageFile, page, 0o644)
}

// replace puts the rows of a run of some ways in the place of the same ones of a whole run.
func replace(file, whole string) error {
	_, some, err := readResults(file)
	if err != nil {
		return err
	}
	release, all, err := readResults(whole)
	if err != nil {
		return err
	}
	for _, r := range some {
		same := func(old result) bool { old.Outcome = r.Outcome; return old == r }
		i := slices.IndexFunc(all, same)
		if i < 0 {
			return fmt.Errorf("%s has no row for %q", whole, r.line())
		}
		all[i] = r
	}
	return os.WriteFile(whole, []byte(all.text(fmt.Sprintf("%s, %d rows run again by themselves", release, len(some)))), 0o644)
}
