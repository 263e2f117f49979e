// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/test/conformance"
)

// Of the time that things may take under software emulation.
const (
	stepPatience     = 4 * time.Minute
	scenarioPatience = 15 * time.Minute
	// eventPatience is how long an expected event may be on its way.
	eventPatience = 2 * time.Second
)

// Config is what a Runner needs.
type Config struct {
	Backend string
	// Helper, Probe and Dyntool are the C programs, Agents two builds of musterd.
	Helper, Probe, Dyntool string
	Agents                 []string
	// Dir is for the repositories.
	Dir string
}

// Runner carries out scenarios one after the other.
type Runner struct {
	config   Config
	fixtures *Fixtures
	releases *Releases
	agent    *Agent
	forks    *Forks
	events   *EventFile
	now      func() time.Time
	empty    bool // the release in force is the empty one, under audit postures
}

// subjectGroup is the cgroup of the host subject's helper.
const subjectGroup = "/sys/fs/cgroup/muster-conformance"

var errOutside = errors.New("this changes the machine it runs on and therefore runs in the lab only")

// NewRunner prepares the machine and starts the agent with an empty release.
func NewRunner(ctx context.Context, c Config, now func() time.Time) (*Runner, error) {
	if os.Getenv("MUSTER_IN_VM") != "1" {
		return nil, errOutside
	}
	r := &Runner{config: c, now: now, events: &EventFile{path: agentEvents}, fixtures: &Fixtures{Root: fixtureRoot}}
	var err error
	if r.fixtures.Probe, err = os.ReadFile(c.Probe); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if r.fixtures.Dyntool, err = os.ReadFile(c.Dyntool); err != nil {
		return nil, fmt.Errorf("dyntool: %w", err)
	}
	for _, prepare := range []func() error{AddUser, Settle, func() error { return Serve(ctx) }} {
		if err := prepare(); err != nil {
			return nil, err
		}
	}
	if r.forks, err = WatchForks(); err != nil {
		return nil, err
	}
	if r.releases, err = NewReleases(ctx, c.Dir); err != nil {
		return nil, err
	}
	if r.agent, err = NewAgent(c.Agents, c.Backend, r.releases); err != nil {
		return nil, err
	}
	return r, r.restore(ctx)
}

// Close ends the agent.
func (r *Runner) Close() error {
	r.forks.Close()
	if !r.agent.Running() {
		return nil
	}
	return r.agent.Stop()
}

// restore brings the machine to where every scenario starts: an agent that enforces an empty release under
// audit postures, and fresh fixtures.
func (r *Runner) restore(ctx context.Context) error {
	if !r.agent.Running() {
		if err := r.agent.Start(ctx); err != nil {
			return err
		}
		r.empty = false
	}
	if !r.empty {
		if err := r.clear(ctx); err != nil {
			return fmt.Errorf("the empty release: %w", err)
		}
		r.empty = true
	}
	if err := Network(ctx); err != nil {
		return err
	}
	return r.fixtures.Fresh()
}

// clear puts the empty release in force. A ruleset that denies what that needs is let go of first: it cost
// its own scenario, and must not cost the next one.
func (r *Runner) clear(ctx context.Context) error {
	if err := r.agent.SetPosture(conformance.AuditPosture()); err != nil {
		return err
	}
	_, err := r.releases.Publish(ctx, emptyRelease(), r.now())
	if err != nil {
		if err := r.agent.LetGo(ctx); err != nil {
			return err
		}
		if err := r.agent.SetPosture(conformance.AuditPosture()); err != nil {
			return err
		}
		if _, err = r.releases.Publish(ctx, emptyRelease(), r.now()); err != nil {
			return err
		}
	}
	refusal, err := r.agent.Sync(ctx)
	if err != nil {
		return err
	}
	return conformance.JudgeRefusal(conformance.Pattern{}, refusal)
}

// emptyRelease has a file, so that it is a release of something; the file holds no policy.
func emptyRelease() map[string][]byte {
	return map[string][]byte{"policies/none.yaml": []byte("# no policies\n")}
}

// failure is where and why a scenario failed.
type failure struct {
	step int
	err  error
}

// Run carries out one scenario.
func (r *Runner) Run(ctx context.Context, s *conformance.Scenario) conformance.Outcome {
	return r.run(ctx, s, nil)
}

func (r *Runner) run(ctx context.Context, s *conformance.Scenario, turned turning) conformance.Outcome {
	ctx, cancel := context.WithTimeout(ctx, scenarioPatience)
	defer cancel()
	out := conformance.Outcome{ID: s.ID, Backend: r.config.Backend}
	if s.Subject == conformance.Container {
		out.Failure = "container subjects are not supported yet"
		return out
	}
	run := &execution{Runner: r, scenario: s, left: family{}, turned: turned}
	if failed := run.all(ctx); failed != nil {
		out.Step, out.Failure = failed.step, failed.err.Error()
		return out
	}
	out.Gap = run.gap()
	return out
}

// execution is one scenario under way.
type execution struct {
	*Runner
	scenario *conformance.Scenario
	helper   *Helper
	held     map[int]int // step -> number of the file held for it
	left     family      // processes of earlier steps
	posture  conformance.Posture
	files    map[string][]byte // the release in force, as far as the scenario knows
	excused  []conformance.Gap
	refusal  string  // of the release that was entered last
	turned   turning // nil when nothing is judged twice
}

func (e *execution) all(ctx context.Context) *failure {
	if err := e.restore(ctx); err != nil {
		return &failure{0, err}
	}
	failed := e.prepareAndRun(ctx)
	if e.helper == nil {
		return failed
	}
	// The ruleset may deny a great deal, but nothing that killing needs.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepPatience)
	defer cancel()
	if err := e.helper.Stop(cleanup); err != nil && failed == nil {
		return &failure{len(e.scenario.Steps), err}
	}
	return failed
}

func (e *execution) prepareAndRun(ctx context.Context) *failure {
	if err := e.startHelper(); err != nil {
		return &failure{0, err}
	}
	if err := e.hold(0); err != nil {
		return &failure{0, err}
	}
	files, err := e.scenario.Files()
	if err != nil {
		return &failure{0, err}
	}
	e.posture = e.scenario.Posture
	if err := e.enter(ctx, files, e.scenario.ExpectError); err != nil {
		return &failure{0, err}
	}
	e.turned.entry(e.scenario, func(t *conformance.Scenario) error { return conformance.JudgeRefusal(t.ExpectError, e.refusal) })
	for i := range e.scenario.Steps {
		if err := e.step(ctx, i); err != nil && !e.excuses(&e.scenario.Steps[i]) {
			return &failure{i + 1, err}
		}
	}
	return nil
}

func (e *execution) startHelper() error {
	var err error
	if e.helper, err = StartHelper(e.config.Helper, subjectGroup); err != nil {
		return err
	}
	terminals := 0
	for _, st := range e.scenario.Steps {
		if st.TTY {
			terminals++
		}
	}
	return e.helper.Terminals(terminals)
}

// hold opens the files that must be held from before the policies (step 0) or the apply of this number:
// those of the held-write steps after it and before the next apply.
func (e *execution) hold(apply int) error {
	if e.held == nil {
		e.held = map[int]int{}
	}
	for i := apply; i < len(e.scenario.Steps); i++ {
		st := &e.scenario.Steps[i]
		if st.Apply != nil {
			return nil
		}
		path, is := st.HeldFile()
		if !is {
			continue
		}
		number, err := e.helper.Hold(path)
		if err != nil {
			return err
		}
		e.held[i+1] = number
	}
	return nil
}

// enter puts policies and the posture in force, or has them refused.
func (e *execution) enter(ctx context.Context, files map[string][]byte, want conformance.Pattern) error {
	if len(files) == 0 {
		if e.empty && e.posture == conformance.AuditPosture() && e.agent.Running() {
			e.refusal = "" // it is what is in force
			return errors.Join(conformance.JudgeRefusal(want, ""), e.judgeGaps(ctx))
		}
		files = emptyRelease()
	}
	e.empty = false
	if err := e.agent.SetPosture(e.posture); err != nil {
		return err
	}
	if _, err := e.releases.Publish(ctx, files, e.now()); err != nil {
		return err
	}
	if !e.agent.Running() {
		e.refusal = "" // it is taken at the next start
		return conformance.JudgeRefusal(want, "")
	}
	refusal, err := e.agent.Sync(ctx)
	if err != nil {
		return err
	}
	e.refusal = refusal
	if err := conformance.JudgeRefusal(want, refusal); err != nil {
		return err
	}
	if refusal == "" {
		e.files = files
	}
	return e.judgeGaps(ctx)
}

func (e *execution) judgeGaps(ctx context.Context) error {
	reported, err := e.agent.Gaps(ctx)
	if err != nil {
		return err
	}
	e.turned.entry(e.scenario, func(t *conformance.Scenario) error {
		if t.ExpectGap == e.scenario.ExpectGap {
			return nil
		}
		_, err := t.JudgeGaps(e.config.Backend, reported)
		return err
	})
	e.excused, err = e.scenario.JudgeGaps(e.config.Backend, reported)
	return err
}

func (e *execution) gap() string {
	var out []string
	for _, g := range e.excused {
		out = append(out, g.Reason+" ("+g.Policy+")")
	}
	return strings.Join(out, ", ")
}

func (e *execution) step(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	st := &e.scenario.Steps[i]
	switch {
	case st.Runs():
		return e.operate(ctx, i+1, st)
	case st.Apply != nil:
		return e.apply(ctx, i+1, st, *st.Apply)
	case st.Posture != nil:
		return e.changePosture(ctx, *st.Posture)
	default:
		return e.trouble(ctx, st.Agent)
	}
}

func (e *execution) apply(ctx context.Context, number int, st *conformance.Step, documents []yaml.Node) error {
	if err := e.hold(number); err != nil {
		return err
	}
	files, err := conformance.PolicyFiles(documents)
	if err != nil {
		return err
	}
	if err := e.enter(ctx, files, st.ExpectError); err != nil {
		return err
	}
	e.turned.step(number, st, func(t *conformance.Step) error { return conformance.JudgeRefusal(t.ExpectError, e.refusal) })
	return nil
}

func (e *execution) changePosture(ctx context.Context, change conformance.Posture) error {
	e.posture = change.Over(e.posture)
	if err := e.agent.SetPosture(e.posture); err != nil {
		return err
	}
	if !e.agent.Running() {
		return nil
	}
	refusal, err := e.agent.Sync(ctx)
	if err != nil {
		return err
	}
	return conformance.JudgeRefusal(conformance.Pattern{}, refusal)
}

// trouble is what happens to the agent. After a start the agent has taken the newest release.
func (e *execution) trouble(ctx context.Context, what conformance.Agent) error {
	switch what {
	case conformance.Kill:
		return e.agent.Kill()
	case conformance.Upgrade:
		if err := e.agent.Upgrade(ctx); err != nil {
			return err
		}
	case conformance.Restart:
		if e.agent.Running() {
			if err := e.agent.Stop(); err != nil {
				return err
			}
		}
		if err := e.agent.Start(ctx); err != nil {
			return err
		}
	}
	_, err := e.agent.Sync(ctx) // a release that was refused before is refused again: no failure of the start
	return err
}
