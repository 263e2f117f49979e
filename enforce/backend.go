// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// Backend is one way to make the kernel obey. Implementations: enforce/bpflsm; later apparmor and selinux.
// Every method may be called again after a failure; none leaves the kernel enforcing less than before.
type Backend interface {
	// Name is "bpflsm", "apparmor", "selinux" or "observe".
	Name() string
	// Capabilities says what this backend can express on this kernel.
	Capabilities() Capabilities
	// Observe reads the kernel. The wanted rulesets are given so that contents can be compared with what
	// they render to; nothing is taken from memory that the kernel can be asked for.
	Observe(ctx context.Context, want []*Ruleset) (State, error)
	// Apply carries out one step. A StepPublish builds aside and swaps once.
	Apply(ctx context.Context, step Step) error
}

// EventSource is a backend that reports what it denied, audited or would have denied.
type EventSource interface {
	// Events calls sink for every event until ctx ends. Sink must not block for long.
	Events(ctx context.Context, sink func(Event)) error
	// Losses returns counted losses by reason since the programs were loaded (ring-full,
	// unknown-ruleset, decode, path, scratch, …).
	Losses() (map[string]uint64, error)
}

// NameWatcher is a backend that notices when names lead elsewhere.
type NameWatcher interface {
	// NamesMoved is signalled, a moment later, after a directory or a symlink got a name: what paths resolve to may have
	// changed.
	NamesMoved() <-chan struct{}
}

// Capabilities is the set of features that Compile may use; what is missing becomes a Gap.
type Capabilities struct {
	Backend string
	// Classes that are enforced.
	Classes map[policies.Class]bool
	// Features by gap reason: "pattern", "execname", "owner-only", "pts", "allowed-args", "dns", ….
	Features map[string]bool
	// Syscalls is what class syscalls may speak of here; nil means every name. It does not travel.
	Syscalls Syscalls `json:"-"`
}

// Step is one thing to do to the kernel, as data. The set is closed.
type Step interface {
	step()
	// String describes the step for a person, in one line.
	String() string
}

// StepAttach makes programs, maps, links and pins present and equal to this agent's own, without a moment
// in which less is enforced. Reason tells what Observe found.
type StepAttach struct{ Reason string }

// StepPublish replaces the subject's ruleset by Ruleset in one atomic swap.
type StepPublish struct{ Ruleset *Ruleset }

// StepWithdraw leaves the subject without a ruleset.
type StepWithdraw struct{ Subject SubjectID }

// StepDetach removes everything of ours from the kernel: the owner's way out.
type StepDetach struct{}

func (StepAttach) step()   {}
func (StepPublish) step()  {}
func (StepWithdraw) step() {}
func (StepDetach) step()   {}

// State is what a backend read from the kernel.
type State struct {
	Backend string
	// Components are the links, programs and maps that enforcement needs.
	Components []Component
	// Subjects are the rulesets found in the kernel.
	Subjects map[SubjectID]SubjectState
	// Foreign are others' programs or profiles on the same hooks: reported, never touched.
	Foreign []string
	// Unlabelled counts processes of a subject that could not be classified.
	Unlabelled int
	// Resisted counts acts against the agent that self-protection denied, since the programs were attached.
	Resisted uint64
	// SelfFault says why self-protection, which was asked for, is not in force as it should be; "" when it is, or was not.
	SelfFault string
}

// Component is one kernel object of ours.
type Component struct {
	Kind string `json:"kind"` // link, program, map, pin
	Name string `json:"name"`
	// Condition is "" when it is as it should be, or "missing", "detached", "altered", "extra".
	Condition DriftKind `json:"condition,omitempty"`
	Detail    string    `json:"detail,omitempty"`
}

// SubjectState is the ruleset that the kernel holds for one subject.
type SubjectState struct {
	// Digest is the digest of the ruleset that the kernel says it holds.
	Digest string `json:"digest"`
	// Intact is true when the contents read back are byte for byte what that ruleset renders to.
	Intact bool   `json:"intact"`
	Mode   Mode   `json:"mode"`
	Detail string `json:"detail,omitempty"`
}

// Event is one denied, audited or would-be-denied operation, with the rules already looked up.
type Event struct {
	Time      time.Time
	Subject   SubjectID
	Class     policies.Class
	Operation string // the kernel operation: exec, open, create, unlink, rename, link, …
	Hook      string // the LSM hook that decided, e.g. FILE_OPEN
	Verdict   Verdict
	Mode      Mode
	// Rule is the rule that decided, or nil; Posture is true when the default posture did.
	Rule      *Rule
	Posture   bool
	WouldDeny bool
	// Lists are the rules that make the allow-list of a default posture that only an audit mode kept from denying: of each
	// policy the first. A source that is known by its inode only has those of the class.
	Lists  []*Rule
	Audits []*Rule
	// DryRuns are the policies in dry run that would have denied what was permitted.
	DryRuns []EventDryRun
	// Visible is true when nothing but the visibility of its class made it an event.
	Visible bool
	// Resource and Source are paths; ResourceTo is the second name of a rename or link.
	Resource   string
	ResourceTo string
	Source     string // executable of the acting process (for exec: of the caller)
	Script     string // the script it was started from, if any
	Parent     string // executable of its parent, when known
	PID        uint32 // thread group id in the initial pid namespace
	PPID       uint32
	UID        uint32
	Comm       string
	TTY        string
	Data       string
	// Cwd is the directory that the caller was in, "" when it has no whole path. Args are those of a program that was
	// started, without the first, as the caller had them at that moment; with ArgsCut there are more, or they could not be
	// read. An event that tells of several operations has none of these.
	Cwd      string
	Args     []string
	ArgsCut  bool
	Errno    int    // of class syscalls: what the call failed with, 0 when it did not
	Sequence uint64 // per CPU; 0 when Count tells of operations that were not told one by one
	CPU      uint32
	// Count is how many operations this tells of. Those of one rule, source and object that come fast are
	// counted in the kernel and told together: Since is the first of them, Time the last, and the process
	// is that of the last.
	Count uint64
	Since time.Time
	// Various means that the objects differed: Resource is one of them.
	Various bool
}

// EventDryRun is a policy in dry run that would have denied an operation.
type EventDryRun struct {
	// Rule is the Block that would have decided; with Posture, or when the path could not be built, the first rule of the
	// policy that makes the difference.
	Rule    *Rule
	Posture bool
}

// DriftKind is the kind of a difference between what is declared and what is enforced (REPORTS).
type DriftKind string

// The drift kinds.
const (
	DriftMissing    DriftKind = "missing"
	DriftAltered    DriftKind = "altered"
	DriftExtra      DriftKind = "extra"
	DriftForeign    DriftKind = "foreign"
	DriftMode       DriftKind = "mode"
	DriftDetached   DriftKind = "detached"
	DriftUnlabelled DriftKind = "unlabelled"
	DriftGap        DriftKind = "gap"
	DriftHeld       DriftKind = "held"
)

// Drift is one difference found.
type Drift struct {
	Kind     DriftKind    `json:"kind"`
	Subject  SubjectID    `json:"subject,omitempty"`
	Policy   *policies.ID `json:"policy,omitempty"`
	Rule     *int         `json:"rule,omitempty"`
	Backend  string       `json:"backend"`
	Declared string       `json:"declared"`
	Observed string       `json:"observed"`
	Since    time.Time    `json:"since"`
	Severity string       `json:"severity"` // high, medium, low
}
