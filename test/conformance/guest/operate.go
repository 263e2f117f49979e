// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/muster-fleet/muster/test/conformance"
)

// operate has the helper run a step and compares what came of it with what the step expects.
func (e *execution) operate(ctx context.Context, number int, st *conformance.Step) error {
	if err := e.settle(); err != nil {
		return err
	}
	order := Order{Terminal: st.TTY, Held: -1, Argv: st.Argv()}
	if st.As == "user1" {
		order.UID, order.GID = user1, user1
	}
	if held, ok := e.held[number]; ok {
		order.Held = held
	}
	result, err := e.helper.Run(ctx, order)
	if err != nil {
		return err
	}
	own, err := e.relatives(result.Pid)
	if err != nil {
		return err
	}
	seen, err := e.awaitEvents(ctx, st, own)
	judge := func(st *conformance.Step) error {
		return errors.Join(st.JudgeExit(result.Code, result.Output), e.judgeEvents(st, own, seen))
	}
	verdict := errors.Join(judge(st), err)
	e.turned.step(number, st, judge)
	for pid := range own {
		e.left[pid] = true
	}
	return verdict
}

// settle takes note of what happened since the last step: processes that were started, and events that
// belong to none of the steps to come. Of the processes of earlier steps only those that still live can
// still act.
func (e *execution) settle() error {
	log, err := e.forks.take()
	if err != nil {
		return err
	}
	e.left.grow(log)
	for pid := range e.left {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			delete(e.left, pid)
		}
	}
	_, err = e.events.read()
	return err
}

// relatives returns the whole process tree of a step that has ended.
func (e *execution) relatives(root int) (family, error) {
	log, err := e.forks.take()
	own := family{root: true}
	for _, f := range log {
		switch {
		case f.child == root:
		case own[f.parent]:
			own[f.child] = true
		default:
			delete(own, f.child)
		}
	}
	delete(e.left, root)
	e.left.grow(log)
	return own, err
}

// judgeEvents compares what was seen with what the step expects.
func (e *execution) judgeEvents(st *conformance.Step, own family, seen []event) error {
	if st.Event != nil && !st.Event.None && !e.agent.Running() {
		return fmt.Errorf("%s: an event is expected and no agent runs", st)
	}
	return st.JudgeEvents(of(seen, own), of(seen, e.left))
}

// awaitEvents waits for what must come. Whatever the kernel has emitted is in the file after a flush, so
// the absence of an event is known at once; an expected one gets its time all the same.
func (e *execution) awaitEvents(ctx context.Context, st *conformance.Step, own family) ([]event, error) {
	if st.Event == nil || !e.agent.Running() {
		return nil, nil // nobody asks, or nobody reports
	}
	patience, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	var seen []event
	var missing error
	err := until(patience, func() (bool, error) {
		if err := e.agent.Flush(ctx); err != nil {
			return false, err
		}
		more, err := e.events.read()
		if err != nil {
			return false, err
		}
		seen = append(seen, more...)
		missing = e.judgeEvents(st, own, seen)
		return missing == nil || st.Event.None, nil
	})
	if missing != nil {
		err = nil // is said by who judges
	}
	return seen, err
}
