// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// reasons are the words that a gap may give.
var reasons = []string{
	"pattern", "pattern-complexity", "execname", "owner-only", "pts", "allowed-args", "dns",
	"container-subject", "hard-link", "rename", "bind-mount", "held-descriptor", "xattr", "interpreter",
	"protocol", "syscalls",
}

// backends are the ones that a scenario may excuse.
var backends = []string{"bpflsm", "apparmor", "selinux"}

// argument says what one argument of an operation must look like.
type argument func(string) bool

func absolute(s string) bool { return path.IsAbs(s) }
func anything(s string) bool { return s != "" }

func oneOf(words ...string) argument {
	return func(s string) bool { return slices.Contains(words, s) }
}

func port(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 1<<16
}

func addressAndPort(s string) bool {
	at := strings.LastIndexByte(s, ':')
	return at > 0 && port(s[at+1:])
}

func protocol(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil || oneOf("icmp", "icmpv6", "tcp", "udp", "sctp")(s)
}

// operation is what the probe's operation takes: required arguments, optional ones, and whether any more
// may follow.
type operation struct {
	required, optional []argument
	rest               bool
}

// operations are the operations of the probe (test/conformance/probe); a test compares the two.
var operations = map[string]operation{
	"exec":            {required: []argument{absolute}, rest: true},
	"exec-fd":         {required: []argument{absolute}, rest: true},
	"exec-loader":     {required: []argument{absolute}, rest: true},
	"exec-memfd":      {required: []argument{absolute}, rest: true},
	"script":          {required: []argument{absolute}},
	"unshare-exec":    {required: []argument{absolute}, rest: true},
	"read":            {required: []argument{absolute}},
	"read-openat2":    {required: []argument{absolute}},
	"read-io_uring":   {required: []argument{absolute}},
	"read-handle":     {required: []argument{absolute}},
	"write":           {required: []argument{absolute}},
	"append":          {required: []argument{absolute}},
	"rdwr-mmap":       {required: []argument{absolute}},
	"truncate":        {required: []argument{absolute}},
	"ftruncate":       {required: []argument{absolute}},
	"create":          {required: []argument{absolute}},
	"unlink":          {required: []argument{absolute}},
	"rename":          {required: []argument{absolute, absolute}},
	"link":            {required: []argument{absolute, absolute}},
	"symlink":         {required: []argument{anything, absolute}},
	"mkdir":           {required: []argument{absolute}},
	"rmdir":           {required: []argument{absolute}},
	"mknod":           {required: []argument{absolute}},
	"chmod":           {required: []argument{absolute}},
	"chown":           {required: []argument{absolute}},
	"setxattr":        {required: []argument{absolute}},
	"list":            {required: []argument{absolute}},
	"chdir-read":      {required: []argument{absolute, anything}},
	"held-write":      {required: []argument{absolute}},
	"bind-mount-read": {required: []argument{absolute, absolute}},
	"unshare-read":    {required: []argument{absolute}},
	"userns-read":     {required: []argument{absolute}},
	"socket": {
		required: []argument{
			oneOf("inet", "inet6", "unix", "packet", "netlink"),
			oneOf("stream", "dgram", "raw", "seqpacket", "rdm"),
		},
		optional: []argument{protocol},
	},
	"connect":     {required: []argument{oneOf("tcp", "udp"), addressAndPort}},
	"bind":        {required: []argument{oneOf("tcp", "udp"), port}},
	"listen":      {required: []argument{port}},
	"send-udp":    {required: []argument{addressAndPort}},
	"send-dns":    {required: []argument{anything}, optional: []argument{oneOf("connected", "tcp")}},
	"unix-stream": {},
	"netlink":     {},
	"cap":         {required: []argument{anything}},
	"syscall":     {required: []argument{anything}, optional: []argument{absolute}},
}

func (o operation) check(args []string) error {
	if len(args) < len(o.required) || (!o.rest && len(args) > len(o.required)+len(o.optional)) {
		return fmt.Errorf("wrong number of arguments")
	}
	for i, accepts := range slices.Concat(o.required, o.optional) {
		if i < len(args) && !accepts(args[i]) {
			return fmt.Errorf("argument %d: %q will not do", i+1, args[i])
		}
	}
	return nil
}

func (s *Scenario) check() error {
	switch {
	case s.ID == "" || strings.ContainsAny(s.ID, " \t\n/"):
		return fmt.Errorf("id %q", s.ID)
	case s.Title == "":
		return fmt.Errorf("no title")
	case s.Subject != Host && s.Subject != Container:
		return fmt.Errorf("subject %q", s.Subject)
	case (s.Document == "") == (s.Policies == nil):
		return fmt.Errorf("exactly one of policies and document must be given")
	case s.PadTo != 0 && s.Document == "":
		return fmt.Errorf("pad_to without document")
	case !s.expects():
		return fmt.Errorf("nothing is expected")
	}
	return s.checkParts()
}

func (s *Scenario) checkParts() error {
	if err := s.Posture.check(); err != nil {
		return err
	}
	if err := s.checkGaps(); err != nil {
		return err
	}
	for i := range s.Steps {
		if err := s.Steps[i].check(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// expects tells whether anything at all can go wrong.
func (s *Scenario) expects() bool {
	return len(s.Steps) > 0 || s.ExpectError.Given() || s.ExpectGap.Given()
}

func (p Posture) check() error {
	for _, word := range []string{p.File, p.Network, p.Capabilities} {
		if word != "" && word != "audit" && word != "block" {
			return fmt.Errorf("posture %q", word)
		}
	}
	return nil
}

func (s *Scenario) checkGaps() error {
	for backend, words := range s.Gaps {
		if !slices.Contains(backends, backend) {
			return fmt.Errorf("gaps: backend %q", backend)
		}
		for _, word := range words {
			if !slices.Contains(reasons, word) {
				return fmt.Errorf("gaps: reason %q", word)
			}
		}
	}
	return nil
}

func (st *Step) check() error {
	kinds := 0
	for _, given := range []bool{st.Do != "", st.Sh != "", st.Apply != nil, st.Posture != nil, st.Agent != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fmt.Errorf("exactly one of do, sh, apply, posture, agent must be given")
	case st.Runs():
		return st.checkRun()
	case st.Via != "" || st.As != "" || st.TTY || st.Expect != "" || st.Event != nil:
		return fmt.Errorf("via, as, tty, expect and event belong to do and sh")
	case st.ExpectError.Given() && st.Apply == nil:
		return fmt.Errorf("expect_error belongs to apply")
	case st.Posture != nil:
		return st.Posture.check()
	case st.Agent != "" && !slices.Contains([]Agent{Kill, Restart, Upgrade}, st.Agent):
		return fmt.Errorf("agent: %q", st.Agent)
	}
	return nil
}

// Runs tells whether the step runs something in the subject.
func (st *Step) Runs() bool { return st.Do != "" || st.Sh != "" }

func (st *Step) checkRun() error {
	switch {
	case st.Expect != OK && st.Expect != Denied:
		return fmt.Errorf("expect %q", st.Expect)
	case st.As != "" && st.As != "root" && st.As != "user1":
		return fmt.Errorf("as %q", st.As)
	case st.Via != "" && (st.Sh != "" || !path.IsAbs(st.Via)):
		return fmt.Errorf("via %q", st.Via)
	case st.ExpectError.Given():
		return fmt.Errorf("expect_error belongs to apply")
	case st.Sh != "":
		return nil
	}
	words := strings.Fields(st.Do)
	op, known := operations[words[0]]
	if !known {
		return fmt.Errorf("operation %q", words[0])
	}
	if err := op.check(words[1:]); err != nil {
		return fmt.Errorf("%s: %w", st.Do, err)
	}
	return nil
}

// Argv is the command that the helper starts for the step.
func (st *Step) Argv() []string {
	if st.Sh != "" {
		return []string{"/bin/bash", "-c", st.Sh}
	}
	via := st.Via
	if via == "" {
		via = DefaultSource
	}
	return append([]string{via}, strings.Fields(st.Do)...)
}

// DefaultSource is the probe's copy that performs an operation when the step names none.
const DefaultSource = "/opt/t/bin/probe"

// HeldFile returns the file that must be opened before the policies of a held-write step.
func (st *Step) HeldFile() (string, bool) {
	words := strings.Fields(st.Do)
	if len(words) == 2 && words[0] == "held-write" {
		return words[1], true
	}
	return "", false
}
