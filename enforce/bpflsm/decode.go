// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// operations and hooks name what the kernel numbers.
var (
	operations = map[bpf.MusterOperation]string{
		bpf.MusterOperationOP_EXEC: "exec", bpf.MusterOperationOP_OPEN: "open", bpf.MusterOperationOP_LIST: "list",
		bpf.MusterOperationOP_CREATE: "create", bpf.MusterOperationOP_TRUNCATE: "truncate",
		bpf.MusterOperationOP_UNLINK: "unlink", bpf.MusterOperationOP_RENAME: "rename",
		bpf.MusterOperationOP_LINK: "link", bpf.MusterOperationOP_SYMLINK: "symlink",
		bpf.MusterOperationOP_MKDIR: "mkdir", bpf.MusterOperationOP_RMDIR: "rmdir",
		bpf.MusterOperationOP_MKNOD: "mknod", bpf.MusterOperationOP_CHMOD: "chmod", bpf.MusterOperationOP_CHOWN: "chown",
	}
	hooks = map[bpf.MusterHook]string{
		bpf.MusterHookHOOK_BPRM_CHECK: "BPRM_CHECK_SECURITY", bpf.MusterHookHOOK_FILE_OPEN: "FILE_OPEN",
		bpf.MusterHookHOOK_PATH_MKNOD: "PATH_MKNOD", bpf.MusterHookHOOK_PATH_TRUNCATE: "PATH_TRUNCATE",
		bpf.MusterHookHOOK_FILE_TRUNCATE: "FILE_TRUNCATE", bpf.MusterHookHOOK_PATH_UNLINK: "PATH_UNLINK",
		bpf.MusterHookHOOK_PATH_RENAME: "PATH_RENAME", bpf.MusterHookHOOK_PATH_LINK: "PATH_LINK",
		bpf.MusterHookHOOK_PATH_SYMLINK: "PATH_SYMLINK", bpf.MusterHookHOOK_PATH_MKDIR: "PATH_MKDIR",
		bpf.MusterHookHOOK_PATH_RMDIR: "PATH_RMDIR", bpf.MusterHookHOOK_PATH_CHMOD: "PATH_CHMOD",
		bpf.MusterHookHOOK_PATH_CHOWN: "PATH_CHOWN",
	}
)

var (
	errTruncated      = errors.New("event is too short")
	errUnknownRuleset = errors.New("event of an unknown ruleset")
)

// deliver decodes one event and hands it on, or counts it as lost.
func (b *Backend) deliver(sample []byte, sink func(enforce.Event)) {
	header, paths, err := parse(sample)
	if err != nil {
		b.reader.lose(lossDecode)
		return
	}
	image := b.reader.image(header.Image)
	if image == nil {
		b.reader.lose(lossUnknownRuleset)
		return
	}
	event, err := image.event(header, paths)
	if err != nil {
		b.reader.lose(lossDecode)
		return
	}
	if header.Script != 0 {
		event.Script = b.scriptPath(header.Script)
	}
	sink(event)
}

// parse takes the header and the paths of one sample apart.
func parse(sample []byte) (*bpf.MusterEvent, [bpf.MusterLimitEVENT_PATHS]string, error) {
	var header bpf.MusterEvent
	var paths [bpf.MusterLimitEVENT_PATHS]string
	size := int(unsafe.Sizeof(header))
	if len(sample) < size {
		return nil, paths, errTruncated
	}
	if _, err := binary.Decode(sample, binary.LittleEndian, &header); err != nil {
		return nil, paths, err
	}
	rest := sample[size:]
	for i, n := range header.Lengths {
		if int(n) > len(rest) {
			return nil, paths, errTruncated
		}
		paths[i], rest = string(rest[:n]), rest[n:]
	}
	return &header, paths, nil
}

// event looks the numbers of an event up in the ruleset that it was decided by.
func (image *Image) event(h *bpf.MusterEvent, paths [bpf.MusterLimitEVENT_PATHS]string) (enforce.Event, error) {
	rs := image.ruleset
	if int(h.Class) >= len(classes) || int(h.Rule) > len(rs.Rules) {
		return enforce.Event{}, errUnknownRuleset
	}
	e := enforce.Event{
		Time: bootTime(h.Time), Subject: rs.Subject, Class: classes[h.Class],
		Operation: operations[bpf.MusterOperation(h.Operation)], Hook: hooks[bpf.MusterHook(h.Hook)],
		Verdict: enforce.Verdict(h.Verdict), Mode: rs.Mode,
		Posture:   h.Flags&uint8(bpf.MusterEventFlagEVENT_POSTURE) != 0,
		WouldDeny: h.Flags&uint8(bpf.MusterEventFlagEVENT_WOULD_DENY) != 0,
		Resource:  paths[0], ResourceTo: paths[1], Source: paths[2], Parent: paths[3],
		PID: h.Pid, PPID: h.Ppid, UID: h.Uid, Comm: text(h.Comm[:]), TTY: text(h.Tty[:]),
		Sequence: h.Sequence, CPU: h.Cpu,
	}
	if h.Rule > 0 {
		e.Rule = &rs.Rules[h.Rule-1]
	}
	var lists [][]int
	for _, n := range h.Audits {
		if int(n) >= len(image.Audits) {
			return enforce.Event{}, errUnknownRuleset
		}
		lists = append(lists, image.Audits[n])
	}
	for _, n := range rs.MergeAudits(lists...) {
		e.Audits = append(e.Audits, &rs.Rules[n])
	}
	return e, nil
}

// scriptPath is the path of a script that some task was started from, "" when it is no longer known.
func (b *Backend) scriptPath(hash uint64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s bpf.MusterScriptPath
	m := b.maps[bpf.MusterMapScripts]
	if m == nil || m.Lookup(hash, &s) != nil || int(s.Length) > len(s.Path) {
		return ""
	}
	path := make([]byte, s.Length)
	for i := range path {
		path[i] = byte(s.Path[i])
	}
	return string(path)
}

func text(chars []int8) string {
	b := make([]byte, len(chars))
	for i, c := range chars {
		b[i] = byte(c)
	}
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// bootTime puts a moment of the boot clock on the wall clock, as the two stand now.
func bootTime(ns uint64) time.Time {
	var boot, wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil {
		return time.Unix(0, int64(ns))
	}
	return time.Unix(0, wall.Nano()-boot.Nano()+int64(ns))
}
