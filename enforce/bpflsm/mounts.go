// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable lists what is mounted where.
const mountTable = "/proc/self/mountinfo"

// mountPoint is a line of proc(5)'s mountinfo.
type mountPoint struct {
	id         uint64 // as fdinfo of /proc calls it
	device     uint32 // as the kernel has it: see kernelDevice
	root       string // the directory of the filesystem that is mounted
	at         string
	filesystem string
}

// kernelDevice is a device number of stat(2) as the kernel itself has it.
func kernelDevice(device uint64) uint32 { return unix.Major(device)<<20 | unix.Minor(device) }

// readMounts reads mountinfo; lines that are none are left out.
func readMounts(table io.Reader) ([]mountPoint, error) {
	var found []mountPoint
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// 29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw
		fields := strings.Fields(lines.Text())
		end := slices.Index(fields, "-")
		if end < 6 || end+1 >= len(fields) {
			continue
		}
		device, err := deviceNumber(fields[2])
		if err != nil {
			return nil, err
		}
		id, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read mounts: number %q: %w", fields[0], err)
		}
		found = append(found, mountPoint{id, device, unescape(fields[3]), unescape(fields[4]), fields[end+1]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return found, nil
}

func deviceNumber(text string) (uint32, error) {
	major, minor, _ := strings.Cut(text, ":")
	high, err := strconv.ParseUint(major, 10, 12)
	if err == nil {
		var low uint64
		if low, err = strconv.ParseUint(minor, 10, 20); err == nil {
			return uint32(high<<20 | low), nil
		}
	}
	return 0, fmt.Errorf("read mounts: device %q: %w", text, err)
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// unescape undoes what the kernel does to blanks in paths.
func unescape(path string) string { return mountEscapes.Replace(path) }
