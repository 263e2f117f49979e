// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/control"
)

// Offline answers what this host would do with a set of policies that nobody released: the same functions as
// in the loop, on this machine's facts, changing nothing.
type Offline struct {
	// Facts are the agent's, or Assumed when no agent answers.
	Facts *control.Rulesets
	// Host resolves paths and knows what must stay possible.
	Host interface {
		Resolve(paths []string) map[string]string
		Protect() []enforce.ProtectPair
	}
}

// Assumed are the facts of a host without an agent: nothing is enforced, and the backend, being unknown, is
// taken to be able to do everything that the compiler knows.
func Assumed(node inventory.Node) *control.Rulesets {
	return &control.Rulesets{
		Labels: node.Labels, Hostname: node.Hostname, Mode: enforce.ModeEnforce,
		Postures:     enforce.Postures{File: enforce.PostureAudit, Network: enforce.PostureAudit, Capabilities: enforce.PostureAudit},
		Capabilities: enforce.Capabilities{Backend: "bpflsm", Classes: everyClass(), Features: everyFeature()},
	}
}

func everyClass() map[policies.Class]bool {
	return map[policies.Class]bool{
		policies.ClassProcess: true, policies.ClassFile: true, policies.ClassNetwork: true, policies.ClassDNS: true,
		policies.ClassCapabilities: true, policies.ClassSyscalls: true, policies.ClassPreset: true,
	}
}

func everyFeature() map[string]bool {
	out := map[string]bool{}
	for _, feature := range []string{
		enforce.FeaturePattern, enforce.FeatureExecName, enforce.FeatureOwnerOnly, enforce.FeaturePts, enforce.FeatureAllowedArgs,
		enforce.FeatureHardLink, enforce.FeatureRename, enforce.FeatureBindMount,
	} {
		out[feature] = true
	}
	return out
}

// Compile brings set down to this host.
func (o *Offline) Compile(set *policies.Set) ([]*enforce.Ruleset, []enforce.Gap, string) {
	selected := policies.Select(set, policies.Subject{Host: true, Labels: o.Facts.Labels})
	protect := o.Facts.Protect
	if len(protect) == 0 { // no agent answered
		protect = o.Host.Protect()
	}
	out := compileHost(enforce.CompileInput{
		Subject: enforce.Host, Policies: selected, Mode: o.Facts.Mode, Capabilities: o.Facts.Capabilities,
		Postures: o.Facts.Postures, Visible: o.Facts.Visible, Aliases: o.Host.Resolve(enforce.LiteralPaths(selected)),
		AllowHostAllowlist: o.Facts.AllowHostAllowlist,
	}, protect, nil)
	return out.rulesets, out.gaps, out.held
}

// Plan says what set would change on this host.
func (o *Offline) Plan(set *policies.Set) *control.Plan {
	rulesets, gaps, held := o.Compile(set)
	have := enforce.State{Subjects: o.Facts.Observed}
	plan := NewPlan(Want{Known: true, Rulesets: rulesets}, have)
	out := Describe(plan, o.Facts.Rulesets, rulesets, gaps)
	out.Held = held
	return out
}

// ErrOperation says that an operation to be explained is not understood.
var ErrOperation = errors.New("operation not understood")

// reads are the file operations that only read.
var reads = []string{"read", "list"}

// writes are the file operations that change something.
var writes = []string{"write", "append", "create", "truncate", "unlink", "rename", "link", "symlink", "mkdir", "rmdir", "mknod", "chmod", "chown", "setxattr"}

// Operations are the words that ParseOperation knows.
func Operations() []string { return slices.Concat([]string{"exec"}, reads, writes) }

// Caller is who tries an operation.
type Caller struct {
	Source   string
	Script   string
	UID      uint32
	Terminal bool
}

// ParseOperation turns words such as "read /etc/shadow" into an operation on this host: symlinks followed,
// the owner looked up, and the file recognised by its inode as the kernel does.
func (o *Offline) ParseOperation(words []string, by Caller, rs *enforce.Ruleset) (enforce.Operation, error) {
	var op enforce.Operation
	if len(words) < 2 {
		return op, fmt.Errorf("%w: a word and a path are needed, such as: read /etc/shadow", ErrOperation)
	}
	switch {
	case words[0] == "exec":
		op.Class, op.Args = policies.ClassProcess, words[2:]
	case slices.Contains(reads, words[0]):
		op.Class, op.Read = policies.ClassFile, true
	case slices.Contains(writes, words[0]):
		op.Class = policies.ClassFile
	default:
		return op, fmt.Errorf("%w: %q is none of %s", ErrOperation, words[0], strings.Join(Operations(), ", "))
	}
	if !path.IsAbs(words[1]) {
		return op, fmt.Errorf("%w: %q is no absolute path", ErrOperation, words[1])
	}
	op.Path = o.resolve(words[1])
	op.Source = enforce.ProcessSource{Executable: o.resolve(by.Source), Script: o.resolve(by.Script)}
	op.Terminal = by.Terminal
	op.Owner = owns(op.Path, by.UID)
	op.Marks = marks(rs, op.Class, op.Path)
	return op, nil
}

func (o *Offline) resolve(p string) string {
	if p == "" {
		return ""
	}
	p = path.Clean(p)
	if elsewhere, moved := o.Host.Resolve([]string{p})[p]; moved {
		return elsewhere
	}
	return p
}

// owns is true for the file's owner, and for whoever makes a new one.
func owns(p string, uid uint32) bool {
	info, err := os.Stat(p)
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid == uid
}

// marks lists the exact-path Blocks whose file p is, whatever its name.
func marks(rs *enforce.Ruleset, class policies.Class, p string) []string {
	info, err := os.Stat(p)
	if err != nil {
		return nil
	}
	var out []string
	for _, marked := range rs.Marks(class) {
		other, err := os.Stat(marked)
		if err == nil && os.SameFile(info, other) {
			out = append(out, marked)
		}
	}
	return out
}
