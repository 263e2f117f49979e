// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforcetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/muster-fleet/muster/enforce"
)

// Fake is a backend whose kernel is a map.
//
// It proves what a caller does with a backend: which steps it takes, in which order, and that Observe then
// shows what was wanted. It keeps the contract of Contract, and its Decide answers as the reference does.
// It proves nothing about any kernel: no link, no race, no boundary between old and new.
type Fake struct {
	mu       sync.Mutex
	caps     enforce.Capabilities
	attached bool
	subjects map[enforce.SubjectID]*enforce.Ruleset
	broken   map[enforce.SubjectID]enforce.SubjectState
	detached bool
	steps    []string
	failures []error
	memory   map[string][]byte
}

// NewFake makes a fake with nothing in its kernel.
func NewFake(caps enforce.Capabilities) *Fake {
	return &Fake{caps: caps, subjects: map[enforce.SubjectID]*enforce.Ruleset{}, broken: map[enforce.SubjectID]enforce.SubjectState{}}
}

var _ enforce.Backend = (*Fake)(nil)

// Remember keeps value under name until Reboot.
func (f *Fake) Remember(name string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memory == nil {
		f.memory = map[string][]byte{}
	}
	f.memory[name] = bytes.Clone(value)
	return nil
}

// Recall answers what is kept under name.
func (f *Fake) Recall(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.memory[name], nil
}

// Reboot leaves a kernel that holds and remembers nothing.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached, f.detached, f.memory = false, false, nil
	clear(f.subjects)
	clear(f.broken)
}

// Name implements enforce.Backend.
func (f *Fake) Name() string { return f.caps.Backend }

// Capabilities implements enforce.Backend.
func (f *Fake) Capabilities() enforce.Capabilities { return f.caps }

// Observe implements enforce.Backend.
func (f *Fake) Observe(context.Context, []*enforce.Ruleset) (enforce.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hook := enforce.Component{Kind: "link", Name: "hook"}
	switch {
	case !f.attached:
		hook.Condition = enforce.DriftMissing
	case f.detached:
		hook.Condition = enforce.DriftDetached
	}
	state := enforce.State{Backend: f.caps.Backend, Components: []enforce.Component{hook}, Subjects: map[enforce.SubjectID]enforce.SubjectState{}}
	for subject, rs := range f.subjects {
		state.Subjects[subject] = enforce.SubjectState{Digest: rs.Digest(), Intact: true, Mode: rs.Mode}
	}
	maps.Copy(state.Subjects, f.broken)
	return state, nil
}

// Apply implements enforce.Backend. A failing step changes nothing.
func (f *Fake) Apply(_ context.Context, step enforce.Step) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, step.String())
	if len(f.failures) > 0 {
		err := f.failures[0]
		f.failures = f.failures[1:]
		return err
	}
	switch s := step.(type) {
	case enforce.StepAttach:
		f.attached, f.detached = true, false
	case enforce.StepPublish:
		if !f.attached {
			return fmt.Errorf("publish %s: nothing is attached", s.Ruleset.Subject)
		}
		f.subjects[s.Ruleset.Subject] = s.Ruleset
		delete(f.broken, s.Ruleset.Subject)
	case enforce.StepWithdraw:
		delete(f.subjects, s.Subject)
		delete(f.broken, s.Subject)
	case enforce.StepDetach:
		f.attached = false
		clear(f.subjects)
		clear(f.broken)
	default:
		return fmt.Errorf("unknown step %T", step)
	}
	return nil
}

// Decide says what the fake's kernel would do: nothing is denied when the hook is not there.
func (f *Fake) Decide(subject enforce.SubjectID, op enforce.Operation) enforce.Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	rs := f.subjects[subject]
	if rs == nil || !f.attached || f.detached {
		return enforce.Decision{Rule: -1}
	}
	return rs.Decide(op)
}

// Steps are the steps applied so far, as sentences, failed ones too.
func (f *Fake) Steps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.steps...)
}

// Fail lets the next steps fail, each with one of the errors.
func (f *Fake) Fail(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, errs...)
}

// Tamper makes the kernel hold something else for a subject than was published, as if somebody had edited
// a map by hand.
func (f *Fake) Tamper(subject enforce.SubjectID, state enforce.SubjectState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[subject] = state
}

// Detach takes the hook away behind the caller's back.
func (f *Fake) Detach() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.detached = true
}
