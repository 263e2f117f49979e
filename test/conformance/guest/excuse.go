// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/conformance"
)

// A gap excuses only the steps that its own rule decides. Which rule that is, the reference decision says:
// the policies in force, compiled as for a backend that can do everything, and the step's operation.

// excuses tells whether a failed step is decided by a rule that the agent reported as a gap.
func (e *execution) excuses(st *conformance.Step) bool {
	if len(e.excused) == 0 {
		return false
	}
	list, err := parseAll(e.files)
	if err != nil {
		return false // a release in force parses
	}
	deciding := decidingRules(list, e.posture, st)
	return slices.ContainsFunc(e.excused, func(g conformance.Gap) bool {
		return slices.ContainsFunc(deciding, func(r ruleName) bool {
			return r.policy == g.Policy && (g.Rule < 0 || g.Rule == r.rule)
		})
	})
}

// ruleName names a rule as a gap does.
type ruleName struct {
	policy string
	rule   int
}

func parseAll(files map[string][]byte) ([]*policies.Policy, error) {
	var out []*policies.Policy
	for name, text := range files {
		list, err := policies.ParseDocument(name, text)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func decidingRules(list []*policies.Policy, posture conformance.Posture, st *conformance.Step) []ruleName {
	words := strings.Fields(st.Do)
	if len(words) == 0 {
		return byEventName(list, st)
	}
	switch class := classOf(words[0]); class {
	case policies.ClassProcess, policies.ClassFile:
		return byReference(list, posture, st, class, words)
	default:
		return byClass(list, class, words)
	}
}

// byEventName: what a shell line does is known only by the event that it must leave.
func byEventName(list []*policies.Policy, st *conformance.Step) []ruleName {
	var out []ruleName
	for _, p := range list {
		for _, r := range p.Rules {
			if st.Event != nil && slices.ContainsFunc(st.Event.Want, func(w map[string]string) bool { return w["PolicyName"] == p.Name }) {
				out = append(out, ruleName{policyName(p.ID), r.Index})
			}
		}
	}
	return out
}

// byClass: of sockets, names, capabilities and system calls every rule of the class has a say, but for those
// that name another capability or call.
func byClass(list []*policies.Policy, class policies.Class, words []string) []ruleName {
	var out []ruleName
	for _, p := range list {
		for _, r := range p.Rules {
			switch {
			case r.Class != class:
			case class == policies.ClassCapabilities && !strings.EqualFold(r.Object.Value, words[1]):
			case class == policies.ClassSyscalls && !slices.Contains(r.Object.Syscalls, words[1]):
			default:
				out = append(out, ruleName{policyName(p.ID), r.Index})
			}
		}
	}
	return out
}

func byReference(list []*policies.Policy, posture conformance.Posture, st *conformance.Step, class policies.Class, words []string) []ruleName {
	rs, _ := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Policies: list, Capabilities: enforcetest.Capabilities("reference"),
		Postures: enforce.Postures{
			File: enforce.Posture(posture.File), Network: enforce.Posture(posture.Network), Capabilities: enforce.Posture(posture.Capabilities),
		},
		Aliases: host.Resolve(os.DirFS("/"), enforce.LiteralPaths(list)),
	})
	var out []ruleName
	for _, op := range operations(st, class, words) {
		d := rs.Decide(op)
		numbers := d.Audits
		if d.Rule >= 0 {
			numbers = append(slices.Clone(numbers), d.Rule)
		}
		for _, run := range d.DryRuns {
			numbers = append(slices.Clone(numbers), run.Rule)
		}
		for _, n := range numbers {
			out = append(out, ruleName{policyName(rs.Rules[n].Policy), rs.Rules[n].Rule.Index})
		}
	}
	return out
}

func policyName(id policies.ID) string {
	if id.Namespace != "" {
		return string(id.Kind) + "/" + id.Namespace + "/" + id.Name
	}
	return string(id.Kind) + "/" + id.Name
}

// classOf is the class of an operation of the probe.
func classOf(operation string) policies.Class {
	switch operation {
	case "exec", "exec-fd", "exec-loader", "exec-memfd", "script", "unshare-exec":
		return policies.ClassProcess
	case "socket", "connect", "bind", "listen", "send-udp", "unix-stream", "netlink":
		return policies.ClassNetwork
	case "send-dns":
		return policies.ClassDNS
	case "cap":
		return policies.ClassCapabilities
	case "syscall":
		return policies.ClassSyscalls
	default:
		return policies.ClassFile
	}
}

// operations are what a step does to each of its objects.
func operations(st *conformance.Step, class policies.Class, words []string) []enforce.Operation {
	objects := words[1:2]
	switch words[0] {
	case "rename", "link":
		objects = words[1:3]
	case "symlink":
		objects = words[2:3]
	case "chdir-read":
		objects = []string{path.Join(words[1], words[2])}
	}
	reads := words[0] == "list" || strings.Contains(words[0], "read")
	var out []enforce.Operation
	for _, object := range objects {
		if resolved, err := filepath.EvalSymlinks(object); err == nil {
			object = resolved
		}
		out = append(out, enforce.Operation{
			Class: class, Path: object, NoPath: words[0] == "exec-memfd", Read: reads, Terminal: st.TTY,
			Owner: owns(st.As, object), Source: enforce.ProcessSource{Executable: st.Argv()[0]},
		})
	}
	return out
}

// owns tells whether the step's user owns the object; a new one is its maker's.
func owns(user, object string) bool {
	info, err := os.Lstat(object)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	uid := uint32(0)
	if user == "user1" {
		uid = user1
	}
	return stat.Uid == uid
}
