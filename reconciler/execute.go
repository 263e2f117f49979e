// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler/internal/statefile"
)

const journalMagic = "muster-journal/1"

// Journal is the plan that is being carried out, on disk, so that an agent that died in the middle is known
// to have. The kernel, read back, says what really happened; the journal only says that it was meant.
type Journal struct {
	Started time.Time `json:"started"`
	Steps   []string  `json:"steps"`
	Done    int       `json:"done"`
	Undone  int       `json:"undone,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// executor is the one place where plans become deeds.
type executor struct {
	backend enforce.Backend
	dir     string
	now     func() time.Time
	// troubled is told when the journal cannot be kept: a full disk must not stop enforcement.
	troubled func(error)
}

// execute carries out plan; before holds the rulesets that the kernel had. When a step fails the steps
// before it are undone, last first, as far as what was there before is known; what is not known is left as
// it is, since a newer verified ruleset is better than none.
func (e *executor) execute(ctx context.Context, plan Plan, before map[enforce.SubjectID]*enforce.Ruleset) error {
	journal := Journal{Started: e.now()}
	for _, step := range plan.Steps {
		journal.Steps = append(journal.Steps, step.String())
	}
	for i, step := range plan.Steps {
		e.write(journal)
		err := e.backend.Apply(ctx, step)
		if err == nil {
			journal.Done = i + 1
			continue
		}
		err = &StepError{Step: step, Err: err}
		undone, undoErr := e.undo(ctx, plan.Steps[:i], before)
		journal.Undone, journal.Error = undone, err.Error()
		e.write(journal)
		return errors.Join(err, undoErr)
	}
	e.finish()
	return nil
}

// undo takes back done, last first, and returns how many steps it took back.
func (e *executor) undo(ctx context.Context, done []enforce.Step, before map[enforce.SubjectID]*enforce.Ruleset) (int, error) {
	var failed error
	undone := 0
	for _, d := range slices.Backward(done) {
		var subject enforce.SubjectID
		switch step := d.(type) {
		case enforce.StepPublish:
			subject = step.Ruleset.Subject
		case enforce.StepWithdraw:
			subject = step.Subject
		default: // attaching took nothing away
			continue
		}
		previous := before[subject]
		if previous == nil {
			continue
		}
		if err := e.backend.Apply(ctx, enforce.StepPublish{Ruleset: previous}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("undo %s: %w", d, err))
			continue
		}
		undone++
	}
	return undone, failed
}

func (e *executor) path() string { return filepath.Join(e.dir, "journal") }

// write notes how far the plan has come. The journal is advisory, see Journal.
func (e *executor) write(journal Journal) {
	if err := statefile.Save(e.path(), journalMagic, journal); err != nil {
		e.troubled(fmt.Errorf("journal: %w", err))
	}
}

// finish removes the journal: its absence says that no plan is half done.
func (e *executor) finish() {
	if err := os.Remove(e.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.troubled(fmt.Errorf("journal: %w", err))
	}
}

// interrupted returns what an earlier agent left half done, nil when nothing; the file is removed.
func (e *executor) interrupted() (*Journal, error) {
	var journal Journal
	err := statefile.Load(e.path(), journalMagic, &journal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		e.finish()
		return nil, err
	}
	e.finish()
	return &journal, nil
}

// StepError is a step that failed.
type StepError struct {
	Step enforce.Step
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }

// Unwrap returns the backend's error.
func (e *StepError) Unwrap() error { return e.Err }

// Name is the stable name of this failure.
func (e *StepError) Name() string { return "apply" }
