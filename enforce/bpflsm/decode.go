// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bytes"
	"errors"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
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
		bpf.MusterOperationOP_SOCKET: "socket", bpf.MusterOperationOP_BIND: "bind", bpf.MusterOperationOP_LISTEN: "listen",
		bpf.MusterOperationOP_CONNECT: "connect", bpf.MusterOperationOP_ACCEPT: "accept", bpf.MusterOperationOP_SEND: "send",
		bpf.MusterOperationOP_QUERY: "query",
		bpf.MusterOperationOP_MAP:   "map", bpf.MusterOperationOP_CAPABLE: "capable", bpf.MusterOperationOP_SYSCALL: "syscall",
		bpf.MusterOperationOP_READ: "read", bpf.MusterOperationOP_WRITE: "write", bpf.MusterOperationOP_RECEIVE: "receive",
		bpf.MusterOperationOP_SETXATTR: "setxattr", bpf.MusterOperationOP_UTIMES: "utimes",
		bpf.MusterOperationOP_IOCTL: "ioctl",
	}
	hooks = map[bpf.MusterHook]string{
		bpf.MusterHookHOOK_BPRM_CHECK: "SECURITY_BPRM_CHECK", bpf.MusterHookHOOK_FILE_OPEN: "FILE_OPEN",
		bpf.MusterHookHOOK_PATH_MKNOD: "PATH_MKNOD", bpf.MusterHookHOOK_PATH_TRUNCATE: "PATH_TRUNCATE",
		bpf.MusterHookHOOK_FILE_TRUNCATE: "FILE_TRUNCATE", bpf.MusterHookHOOK_PATH_UNLINK: "PATH_UNLINK",
		bpf.MusterHookHOOK_PATH_RENAME: "PATH_RENAME", bpf.MusterHookHOOK_PATH_LINK: "PATH_LINK",
		bpf.MusterHookHOOK_PATH_SYMLINK: "PATH_SYMLINK", bpf.MusterHookHOOK_PATH_MKDIR: "PATH_MKDIR",
		bpf.MusterHookHOOK_PATH_RMDIR: "PATH_RMDIR", bpf.MusterHookHOOK_PATH_CHMOD: "PATH_CHMOD",
		bpf.MusterHookHOOK_PATH_CHOWN: "PATH_CHOWN", bpf.MusterHookHOOK_SOCKET_CREATE: "SOCKET_CREATE",
		bpf.MusterHookHOOK_SOCKET_BIND: "SOCKET_BIND", bpf.MusterHookHOOK_SOCKET_LISTEN: "SOCKET_LISTEN",
		bpf.MusterHookHOOK_SOCKET_CONNECT: "SOCKET_CONNECT", bpf.MusterHookHOOK_SOCKET_ACCEPT: "SOCKET_ACCEPT",
		bpf.MusterHookHOOK_SOCKET_SENDMSG: "SOCKET_SENDMSG", bpf.MusterHookHOOK_PACKET: "CGROUP_SKB_EGRESS",
		bpf.MusterHookHOOK_MMAP_FILE:     "MMAP_FILE",
		bpf.MusterHookHOOK_FILE_MPROTECT: "FILE_MPROTECT", bpf.MusterHookHOOK_BPRM_COMMITTING: "BPRM_COMMITTING_CREDS",
		bpf.MusterHookHOOK_CAPABLE: "CAPABLE", bpf.MusterHookHOOK_SYSCALL: "SYS_EXIT",
		bpf.MusterHookHOOK_FILE_PERMISSION: "FILE_PERMISSION",
		bpf.MusterHookHOOK_FILE_RECEIVE:    "FILE_RECEIVE", bpf.MusterHookHOOK_INODE_SETXATTR: "INODE_SETXATTR",
		bpf.MusterHookHOOK_INODE_REMOVEXATTR: "INODE_REMOVEXATTR", bpf.MusterHookHOOK_INODE_SET_ACL: "INODE_SET_ACL",
		bpf.MusterHookHOOK_INODE_REMOVE_ACL: "INODE_REMOVE_ACL",
		bpf.MusterHookHOOK_PACKET_IN:        "CGROUP_SKB_INGRESS", bpf.MusterHookHOOK_INODE_SETATTR: "INODE_SETATTR",
		bpf.MusterHookHOOK_FILE_IOCTL: "FILE_IOCTL", bpf.MusterHookHOOK_INODE_CREATE: "INODE_CREATE",
		bpf.MusterHookHOOK_INODE_MKNOD: "INODE_MKNOD", bpf.MusterHookHOOK_INODE_MKDIR: "INODE_MKDIR",
		bpf.MusterHookHOOK_INODE_RMDIR: "INODE_RMDIR", bpf.MusterHookHOOK_INODE_SYMLINK: "INODE_SYMLINK",
		bpf.MusterHookHOOK_INODE_UNLINK: "INODE_UNLINK", bpf.MusterHookHOOK_INODE_LINK: "INODE_LINK",
		bpf.MusterHookHOOK_INODE_RENAME: "INODE_RENAME",
	}
)

var (
	errTruncated      = errors.New("event is too short")
	errUnknownRuleset = errors.New("event of an unknown ruleset")
)

// knownStrings bounds how many names a decoder remembers, so that the same path is not copied for each event.
const knownStrings = 4096

// decoder makes events of samples, for one reader at a time. What it remembers saves work only.
type decoder struct {
	reader  *eventReader
	script  func(hash uint64) string // "" when it is not known any more
	names   map[string]string
	scripts map[uint64]string
	makers  map[listOf][]*enforce.Rule
	clock   clock
}

// listOf is an allow-list of an image: that of a class for a source.
type listOf struct {
	image          uint64
	class          policies.Class
	source, script string
}

func newDecoder(r *eventReader, script func(uint64) string) *decoder {
	return &decoder{reader: r, script: script, names: map[string]string{}, scripts: map[uint64]string{}, makers: map[listOf][]*enforce.Rule{}}
}

// deliver decodes one event and hands it on, or counts it as lost.
func (d *decoder) deliver(sample []byte, sink func(enforce.Event)) {
	event, err := d.decode(sample, false)
	if err != nil {
		d.reader.lose(lossReason(err), 1)
		return
	}
	sink(event)
}

func lossReason(err error) string {
	if errors.Is(err, errUnknownRuleset) {
		return lossUnknownRuleset
	}
	return lossDecode
}

// decode makes an event of a sample; cut means that paths which found no room may be missing at its end.
func (d *decoder) decode(sample []byte, cut bool) (enforce.Event, error) {
	header, paths, rest, err := parse(sample, cut)
	if err != nil {
		return enforce.Event{}, err
	}
	image := d.reader.image(header.Image)
	if image == nil {
		return enforce.Event{}, errUnknownRuleset
	}
	event, err := image.event(header)
	if err != nil {
		return event, err
	}
	event.Time = d.clock.at(header.Time)
	event.Resource, event.ResourceTo = d.name(paths[0]), d.name(paths[1])
	describe(&event, header)
	event.Source, event.Parent = d.name(paths[2]), d.name(paths[3])
	event.Cwd, event.Args = d.name(paths[bpf.MusterEventLimitEVENT_DIRECTORY]), arguments(rest)
	event.Comm, event.TTY = d.name(text(header.Comm[:])), d.name(text(header.Tty[:]))
	if header.Script != 0 {
		event.Script = d.scriptPath(header.Script)
	}
	if rs := image.ruleset; event.Posture && event.WouldDeny && rs.Mode == enforce.ModeAudit && rs.Postures.Of(event.Class) == enforce.PostureBlock {
		event.Lists = d.listMakers(image, &event)
	}
	return event, nil
}

// listMakers are the rules that make the allow-list that would have denied the event.
func (d *decoder) listMakers(image *Image, e *enforce.Event) []*enforce.Rule {
	key := listOf{image.ID, e.Class, e.Source, e.Script}
	rules, known := d.makers[key]
	if known {
		return rules
	}
	for _, n := range image.ruleset.ListMakers(e.Class, &enforce.ProcessSource{Executable: e.Source, Script: e.Script}) {
		rules = append(rules, &image.ruleset.Rules[n])
	}
	if len(d.makers) >= knownStrings {
		clear(d.makers)
	}
	d.makers[key] = rules
	return rules
}

// name is a string of these bytes, which belong to the ring.
func (d *decoder) name(b []byte) string {
	if s, known := d.names[string(b)]; known {
		return s
	}
	if len(d.names) >= knownStrings {
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}

func (d *decoder) scriptPath(hash uint64) string {
	path, known := d.scripts[hash]
	if !known {
		if path = d.script(hash); path == "" {
			return ""
		}
		if len(d.scripts) >= knownStrings {
			clear(d.scripts)
		}
		d.scripts[hash] = path
	}
	return path
}

// eventPaths are the paths of a sample, in the order of struct event.
type eventPaths [bpf.MusterLimitEVENT_PATHS][]byte

// parse takes the header, the paths and the arguments of one sample apart. Nothing is copied.
func parse(sample []byte, cut bool) (*bpf.MusterEvent, eventPaths, []byte, error) {
	var paths eventPaths
	size := int(unsafe.Sizeof(bpf.MusterEvent{}))
	if len(sample) < size {
		return nil, paths, nil, errTruncated
	}
	header := view[bpf.MusterEvent](sample, 0, 0)
	rest := sample[size:]
	for i, n := range header.Lengths {
		if int(n) > len(rest) {
			if cut {
				return header, paths, nil, nil
			}
			return nil, paths, nil, errTruncated
		}
		paths[i], rest = rest[:n], rest[n:]
	}
	if int(header.Arguments) > len(rest) {
		if cut {
			return header, paths, nil, nil
		}
		return nil, paths, nil, errTruncated
	}
	return header, paths, rest[:header.Arguments], nil
}

// arguments are strings that each end in a zero.
func arguments(b []byte) []string {
	var found []string
	for len(b) > 0 {
		s, rest, _ := bytes.Cut(b, []byte{0})
		found, b = append(found, string(s)), rest
	}
	return found
}

// event looks the numbers of an event up in the ruleset that it was decided by.
func (image *Image) event(h *bpf.MusterEvent) (enforce.Event, error) {
	rs := image.ruleset
	if int(h.Class) >= len(classes) || int(h.Rule) > len(rs.Rules) {
		return enforce.Event{}, errUnknownRuleset
	}
	e := enforce.Event{
		Subject: rs.Subject, Class: classes[h.Class],
		Operation: operations[bpf.MusterOperation(h.Operation)], Hook: hooks[bpf.MusterHook(h.Hook)],
		Verdict: enforce.Verdict(h.Verdict), Mode: rs.Mode,
		Posture:   h.Flags&uint8(bpf.MusterEventFlagEVENT_POSTURE) != 0,
		WouldDeny: h.Flags&uint8(bpf.MusterEventFlagEVENT_WOULD_DENY) != 0,
		Visible:   h.Flags&uint8(bpf.MusterEventFlagEVENT_VISIBLE) != 0,
		ArgsCut:   h.Flags&uint8(bpf.MusterEventFlagEVENT_CUT) != 0,
		PID:       h.Pid, PPID: h.Ppid, UID: h.Uid, Sequence: h.Sequence, CPU: h.Cpu, Count: 1,
		Errno: int(h.Error),
	}
	if h.Rule > 0 {
		e.Rule = &rs.Rules[h.Rule-1]
	}
	found, err := image.lists(h.Audits[:], bpf.MusterEventFlag(h.Flags))
	if err != nil {
		return enforce.Event{}, err
	}
	for _, n := range found.audits {
		e.Audits = append(e.Audits, &rs.Rules[n])
	}
	for _, run := range found.dryRuns {
		e.DryRuns = append(e.DryRuns, enforce.EventDryRun{Rule: &rs.Rules[run.Rule], Posture: run.Posture})
	}
	// The kernel tells a little too much of dry runs; what is visible is told all the same.
	if h.Flags&^uint8(bpf.MusterEventFlagEVENT_CUT) == uint8(bpf.MusterEventFlagEVENT_DRY) && len(e.DryRuns)+len(e.Audits) == 0 {
		e.Visible = slices.Contains(rs.Visible, e.Class) && !isOfOpen(bpf.MusterOperation(h.Operation))
	}
	return e, nil
}

// isOfOpen says whether the operation is one on what is open already: its opening was told of.
func isOfOpen(operation bpf.MusterOperation) bool {
	return operation == bpf.MusterOperationOP_READ || operation == bpf.MusterOperationOP_WRITE || operation == bpf.MusterOperationOP_MAP
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

// text is what stands before the first zero.
func text(chars []int8) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(chars))), len(chars))
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return b
}

// clock puts moments of the boot clock on the wall clock, as the two stood at most a second before.
type clock struct {
	read   uint64 // boot clock at the last look
	offset int64
}

func (c *clock) at(ns uint64) time.Time {
	if c.read == 0 || ns > c.read+uint64(time.Second) {
		c.look(ns)
	}
	return time.Unix(0, c.offset+int64(ns))
}

func (c *clock) look(ns uint64) {
	var boot, wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil {
		return
	}
	c.read, c.offset = max(uint64(boot.Nano()), ns), wall.Nano()-boot.Nano()
}
