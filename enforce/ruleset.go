// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package enforce turns policies into what one subject should obey, decides operations against it, and
// compares it with what a kernel really enforces.
//
// It is pure: no clock, no file system, no kernel. Policy semantics exist here and nowhere else; a backend
// renders a Ruleset and never reinterprets it. Ruleset.Decide is the reference decision: every backend is
// tested against it.
package enforce

import (
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// SubjectID names a subject on this host: "host", or a container's id.
type SubjectID string

// Host is the subject that every process outside a known container belongs to.
const Host SubjectID = "host"

// Posture is what an allow-list does with an operation that no rule matches.
type Posture string

// The postures; the zero value is treated as PostureAudit.
const (
	PostureAudit Posture = "audit"
	PostureBlock Posture = "block"
)

// Postures are the default postures of a subject by class; File serves process and file alike.
type Postures struct {
	File         Posture `json:"file"`
	Network      Posture `json:"network"`
	Capabilities Posture `json:"capabilities"`
}

// Mode is how far a ruleset or a policy is taken.
type Mode string

// The modes, from strong to weak; the weakest of host, wave and policy wins.
const (
	ModeEnforce Mode = "enforce"
	ModeAudit   Mode = "audit"
	ModeOff     Mode = "off"
)

// Rule is one rule of a ruleset: a policy's rule with its names resolved for the subject.
type Rule struct {
	Policy policies.ID   `json:"policy"`
	Rule   policies.Rule `json:"rule"`
	// Objects are the literal spellings that match: Rule.Object.Value first, then the same path after
	// resolving symlinks inside the subject. Ranking always uses the first.
	Objects []string `json:"objects"`
	// Sources are the source paths, literal and resolved; without any, and without Directories, every source.
	Sources []string `json:"sources,omitempty"`
	// Directories are sources, too: of class syscalls only.
	Directories []Directory `json:"directories,omitempty"`
	// DryRun marks an Allow or a Block of a policy whose own mode is audit inside an enforcing ruleset: it never
	// changes a verdict. What its policy would have denied is reported as "Audit (Block)".
	DryRun bool `json:"dryRun,omitempty"`
	// Version names the contents of the policy as long as something of it is in audit: what was soaked.
	Version string `json:"version,omitempty"`
}

// Ruleset is what one subject should obey. It is immutable once compiled.
type Ruleset struct {
	Subject SubjectID `json:"subject"`
	// Mode is ModeEnforce, or ModeAudit: the same decisions, but nothing is denied.
	Mode Mode `json:"mode"`
	// Held says why a ruleset that should enforce runs in audit (host safety); empty otherwise.
	Held     string   `json:"held,omitempty"`
	Postures Postures `json:"postures"`
	// Visible are the classes of which everything is reported that happens, sorted: it changes no verdict.
	Visible []policies.Class `json:"visible,omitempty"`
	// Rules are sorted by (kind, namespace, policy name, rule position); a rule's number is its index.
	Rules []Rule `json:"rules"`
}

// Hold returns a copy that runs in audit because of why: the host's safety comes before its policy.
func (rs *Ruleset) Hold(why string) *Ruleset {
	held := *rs
	held.Mode, held.Held = ModeAudit, why
	return &held
}

// Gap is something asked for that is not enforced here, and why. Nothing is ever dropped without one.
type Gap struct {
	Subject SubjectID   `json:"subject"`
	Policy  policies.ID `json:"policy"`
	// Rule is the rule's position in its policy, -1 when the whole policy is meant.
	Rule    int    `json:"rule"`
	Backend string `json:"backend"`
	// Reason is one word of SCENARIOS' list, or host-allow-list, class, mode.
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// Verdict is the outcome of a decision.
type Verdict uint8

// The verdicts.
const (
	Permit Verdict = iota
	Deny
)

// String is the verdict as a word.
func (v Verdict) String() string {
	if v == Deny {
		return "deny"
	}
	return "permit"
}

// MarshalText makes the verdict a word in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// ProcessSource is who acts: the executable and, when it was started from a script (#!), the script.
// Marks are the protected paths that the executable's or script's inode is known by besides its name.
type ProcessSource struct {
	Executable      string   `json:"executable,omitempty"`
	ExecutableMarks []string `json:"executableMarks,omitempty"`
	Script          string   `json:"script,omitempty"`
	ScriptMarks     []string `json:"scriptMarks,omitempty"`
	// Chain are the scripts between that one and the executable: of a script whose interpreter is a script.
	Chain      []string `json:"chain,omitempty"`
	ChainMarks []string `json:"chainMarks,omitempty"`
}

// Names are the paths that a process is known as a source by.
func (s *ProcessSource) Names() []string {
	return slices.DeleteFunc(append([]string{s.Executable, s.Script}, s.Chain...), func(name string) bool { return name == "" })
}

// Marks are those that its files are known by, whatever their names are now.
func (s *ProcessSource) Marks() []string {
	return slices.Concat(s.ExecutableMarks, s.ScriptMarks, s.ChainMarks)
}

// Operation is one attempt, as the kernel sees it, on one object.
type Operation struct {
	Class policies.Class `json:"class"`
	// Path is the object's path from the top of the subject's mount tree. Empty together with NoPath
	// means that it could not be built; empty without NoPath is an object that has no path by nature, such
	// as an executed memfd: no rule matches it.
	Path   string `json:"path,omitempty"`
	NoPath bool   `json:"noPath,omitempty"`
	// Marks are the exact-path Block objects whose inode this is, whatever its name now.
	Marks []string `json:"marks,omitempty"`
	// Names are what an operation without a path is known by: every protocol that a socket counts as, the
	// queried domain, or the capability.
	Names []string `json:"names,omitempty"`
	// Flow is the object of the classes ingress and egress.
	Flow   *Flow         `json:"flow,omitempty"`
	Source ProcessSource `json:"source"`
	// Owner: the caller's fsuid owns the object; a new object is its maker's.
	Owner bool `json:"owner"`
	// Read: the operation only reads.
	Read bool `json:"read"`
	// Mapped, of class process: the file is mapped executable by a process that runs already, not run.
	Mapped bool `json:"mapped,omitempty"`
	// Terminal: the process has a controlling terminal.
	Terminal bool `json:"terminal"`
	// Args are the arguments after argv[0] of class process.
	Args []string `json:"args,omitempty"`
}

// Decision is the answer to an Operation.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	// Rule is the number of the Allow or Block rule that decided, or -1.
	Rule int `json:"rule"`
	// Posture is true when no rule matched and an allow-list's default posture decided.
	Posture bool `json:"posture,omitempty"`
	// WouldDeny is true when Verdict is Permit only because the ruleset or its posture is in audit.
	WouldDeny bool `json:"wouldDeny,omitempty"`
	// Audits are the numbers of the Audit rules that matched, one for each policy, ascending.
	Audits []int `json:"audits,omitempty"`
	// DryRuns are the policies in dry run that would have denied what is permitted, in the order of the rules.
	DryRuns []DryRun `json:"dryRuns,omitempty"`
	// Unbuildable is true when NoPath decided.
	Unbuildable bool `json:"unbuildable,omitempty"`
}
