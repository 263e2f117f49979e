// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// kernel pretends to be a kernel with a backend. It outlives the agents of one story, as kernels do, and
// writes down every ruleset that was ever in force.
type kernel struct {
	mu       sync.Mutex
	subjects map[enforce.SubjectID]enforce.SubjectState
	rules    map[enforce.SubjectID]int
	attached bool
	// fail counts, by kind of step, how often it is still to fail.
	fail    map[string]int
	history []string
	blind   bool
	// kept is what a boot would make it forget, restored what it was given back.
	kept, restored string
	// selfFault and resisted are what it tells of self-protection.
	selfFault string
	resisted  uint64
	// hold is called once, by the next Observe.
	hold func()
}

var errPretended = errors.New("pretended failure")

func newKernel() *kernel {
	return &kernel{subjects: map[enforce.SubjectID]enforce.SubjectState{}, rules: map[enforce.SubjectID]int{}, fail: map[string]int{}}
}

func (k *kernel) Name() string { return "bpflsm" }

func (k *kernel) Capabilities() enforce.Capabilities {
	features := map[string]bool{}
	for _, f := range []string{
		enforce.FeaturePattern, enforce.FeatureExecName, enforce.FeatureOwnerOnly,
		enforce.FeatureHardLink, enforce.FeatureRename, enforce.FeatureBindMount,
	} {
		features[f] = true
	}
	return enforce.Capabilities{
		Backend: "bpflsm", Features: features,
		Classes: map[policies.Class]bool{policies.ClassProcess: true, policies.ClassFile: true},
	}
}

func (k *kernel) Observe(context.Context, []*enforce.Ruleset) (enforce.State, error) {
	k.mu.Lock()
	hold := k.hold
	k.hold = nil
	k.mu.Unlock()
	if hold != nil {
		hold()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.blind {
		return enforce.State{}, errPretended
	}
	state := enforce.State{
		Backend: "bpflsm", Subjects: map[enforce.SubjectID]enforce.SubjectState{}, SelfFault: k.selfFault, Resisted: k.resisted,
	}
	link := enforce.Component{Kind: "link", Name: "file_open"}
	if !k.attached {
		link.Condition = enforce.DriftDetached
	}
	state.Components = append(state.Components, link)
	maps.Copy(state.Subjects, k.subjects)
	return state, nil
}

func (k *kernel) setSelf(fault string, resisted uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.selfFault, k.resisted = fault, resisted
}

func (k *kernel) Apply(_ context.Context, step enforce.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	kind := fmt.Sprintf("%T", step)[len("enforce.Step"):]
	if k.fail[kind] > 0 {
		k.fail[kind]--
		return fmt.Errorf("%w of %s", errPretended, kind)
	}
	switch s := step.(type) {
	case enforce.StepAttach:
		k.attached = true
	case enforce.StepPublish:
		if !k.attached {
			return errors.New("not attached")
		}
		k.subjects[s.Ruleset.Subject] = enforce.SubjectState{Digest: s.Ruleset.Digest(), Intact: true, Mode: s.Ruleset.Mode}
		k.rules[s.Ruleset.Subject] = len(s.Ruleset.Rules)
	case enforce.StepWithdraw:
		delete(k.subjects, s.Subject)
		delete(k.rules, s.Subject)
	}
	k.history = append(k.history, step.String())
	return nil
}

// Keep implements reconciler.BootMemory.
func (k *kernel) Keep() ([]byte, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == "" {
		return nil, true, nil
	}
	return []byte(k.kept), true, nil
}

// Restore implements reconciler.BootMemory.
func (k *kernel) Restore(value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.restored = string(value)
	return nil
}

// tamper makes something differ from what was published.
func (k *kernel) tamper(what string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	host := k.subjects[enforce.Host]
	switch what {
	case "contents":
		host.Intact = false
		k.subjects[enforce.Host] = host
	case "digest":
		host.Digest = "sha256:0"
		k.subjects[enforce.Host] = host
	case "mode":
		host.Mode = enforce.ModeAudit
		k.subjects[enforce.Host] = host
	case "link":
		k.attached = false
	case "ruleset":
		delete(k.subjects, enforce.Host)
	case "extra":
		k.subjects["stranger"] = enforce.SubjectState{Digest: "sha256:1", Intact: true, Mode: enforce.ModeEnforce}
	case "reboot":
		k.attached = false
		clear(k.subjects)
		clear(k.rules)
	default:
		return fmt.Errorf("tamper with what: %q", what)
	}
	return nil
}

// hostRules is how many rules the host's ruleset in the kernel has, -1 without one.
func (k *kernel) hostRules() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, there := k.subjects[enforce.Host]; !there || !s.Intact || !k.attached {
		return -1
	}
	return k.rules[enforce.Host]
}

func (k *kernel) set(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fn()
}
