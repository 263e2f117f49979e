// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/conformance"
)

// Of the agent's life on the machine.
const (
	agentProgram = "/usr/sbin/musterd"
	agentLog     = "/var/log/muster/musterd.log"
	agentEvents  = "/var/log/muster/events.jsonl"
	// agentPatience is how long the agent may take for one thing under software emulation.
	agentPatience = 3 * time.Minute
)

// Agent is the real musterd, run as a service manager would run it.
type Agent struct {
	builds  []string // two programs that differ by their version
	current int
	config  config.Config
	client  *control.Client
	running *exec.Cmd
	ended   chan struct{} // closed when running has ended
}

// NewAgent writes the agent's configuration and puts the first build in place; nothing is started.
func NewAgent(builds []string, backend string, r *Releases) (*Agent, error) {
	a := &Agent{builds: builds, config: config.Default()}
	c := &a.config
	c.Source.URL = r.URL
	c.Source.Interval, c.Source.Jitter = time.Hour, 0 // only when it is told to
	c.Status.URL, c.Status.Collect = r.StatusURL, "off"
	c.Backend = backend
	c.Events.File = agentEvents
	a.client = control.NewClient(c.Socket)
	for _, dir := range []string{filepath.Dir(agentLog), filepath.Dir(c.Trust), c.StateDir, filepath.Dir(c.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	if err := os.WriteFile(c.Trust, r.TrustYAML, 0o600); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if err := a.SetPosture(conformance.AuditPosture()); err != nil {
		return nil, err
	}
	return a, a.install(0)
}

func (a *Agent) install(build int) error {
	text, err := os.ReadFile(a.builds[build])
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	aside := agentProgram + ".new"
	if err := os.WriteFile(aside, text, 0o755); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := os.Rename(aside, agentProgram); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.current = build
	return nil
}

// LetGo withdraws whatever is in force, without a release: the way out when a ruleset denies what publishing
// needs. The agent enforces again with the first Sync after the next SetPosture.
func (a *Agent) LetGo(ctx context.Context) error {
	a.config.Mode = enforce.ModeOff
	if err := a.write(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	if _, err := a.client.Sync(ctx, control.SyncRequest{Wait: true, Reload: true}); err != nil {
		return fmt.Errorf("agent: letting go: %w%s", err, a.obituary())
	}
	return nil
}

// SetPosture writes the default postures; the agent takes them at the next Sync or start.
func (a *Agent) SetPosture(p conformance.Posture) error {
	a.config.Mode = enforce.ModeEnforce
	a.config.Postures = config.Postures{
		File: enforce.Posture(p.File), Network: enforce.Posture(p.Network), Capabilities: enforce.Posture(p.Capabilities),
	}
	return a.write()
}

func (a *Agent) write() error {
	text, err := config.Marshal(a.config)
	if err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	if err := os.WriteFile(config.DefaultPath, text, 0o600); err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	return nil
}

// Running tells whether there is an agent.
func (a *Agent) Running() bool {
	if a.running == nil {
		return false
	}
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

// Start starts the agent and waits until it answers.
func (a *Agent) Start(ctx context.Context) error {
	log, err := os.OpenFile(agentLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(agentProgram)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.running, a.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(ended)
	}(a.ended)
	return a.ready(ctx)
}

func (a *Agent) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	err := until(ctx, func() (bool, error) {
		if !a.Running() {
			return false, fmt.Errorf("agent: it ended: %s: %s", a.running.ProcessState, logEnd())
		}
		_, err := a.client.Status(ctx)
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	return nil
}

// Kill ends the agent at once.
func (a *Agent) Kill() error { return a.end(syscall.SIGKILL, agentPatience) }

// Stop asks the agent to end, as a service manager does before an upgrade.
func (a *Agent) Stop() error { return a.end(syscall.SIGTERM, agentPatience) }

var errAgentGone = errors.New("the agent is not running")

func (a *Agent) end(signal syscall.Signal, patience time.Duration) error {
	if !a.Running() {
		return errAgentGone
	}
	if err := a.running.Process.Signal(signal); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-a.ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("agent: it did not end on signal %d: %s", signal, logEnd())
	}
}

// Upgrade replaces the agent's program by the other build and starts it.
func (a *Agent) Upgrade(ctx context.Context) error {
	if a.Running() {
		if err := a.Stop(); err != nil {
			return err
		}
	}
	if err := a.install((a.current + 1) % len(a.builds)); err != nil {
		return err
	}
	return a.Start(ctx)
}

// Sync makes the agent take the newest release and its configuration, and waits for what comes of it: a
// refusal's text, or "" when the release is in force.
func (a *Agent) Sync(ctx context.Context) (refusal string, err error) {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	result, err := a.client.Sync(ctx, control.SyncRequest{Wait: true, Reload: true})
	if err != nil {
		return "", fmt.Errorf("agent: sync: %w%s", err, a.obituary())
	}
	switch result.Outcome {
	case control.OutcomeEnforced, control.OutcomeAudited, control.OutcomeHeld:
		return "", nil
	case control.OutcomeRefused:
		if result.Problem == nil {
			return "", fmt.Errorf("agent: sync: refused without a reason")
		}
		return result.Problem.Name + ": " + result.Problem.Message, nil
	}
	if result.Problem != nil {
		return "", fmt.Errorf("agent: sync: %s: %s: %s", result.Outcome, result.Problem.Name, result.Problem.Message)
	}
	return "", fmt.Errorf("agent: sync: %s", result.Outcome)
}

func (a *Agent) obituary() string {
	if a.Running() {
		return ""
	}
	return fmt.Sprintf(" (musterd ended: %s: %s)", a.running.ProcessState, logEnd())
}

// Gaps are those of the rulesets that the agent wants to be in force.
func (a *Agent) Gaps(ctx context.Context) ([]conformance.Gap, error) {
	rulesets, err := a.client.Rulesets(ctx)
	if err != nil {
		return nil, fmt.Errorf("agent: gaps: %w", err)
	}
	var out []conformance.Gap
	for _, g := range rulesets.Gaps {
		id := string(g.Policy.Kind) + "/" + g.Policy.Name
		if g.Policy.Namespace != "" {
			id = string(g.Policy.Kind) + "/" + g.Policy.Namespace + "/" + g.Policy.Name
		}
		out = append(out, conformance.Gap{Policy: id, Rule: g.Rule, Reason: g.Reason, Detail: g.Detail})
	}
	return out, nil
}

// Backend is the backend that the agent says it uses.
func (a *Agent) Backend(ctx context.Context) (string, error) {
	status, err := a.client.Status(ctx)
	if err != nil {
		return "", fmt.Errorf("agent: status: %w", err)
	}
	if status.Report == nil {
		return "", nil
	}
	return status.Report.Backend, nil
}

// Flush returns when every event that the kernel emitted before is in the events file.
func (a *Agent) Flush(ctx context.Context) error {
	if err := a.client.Flush(ctx); err != nil {
		return fmt.Errorf("agent: flush: %w%s", err, a.obituary())
	}
	return nil
}

// logEnd is the end of the agent's log, for a person.
func logEnd() string {
	text, err := os.ReadFile(agentLog)
	if err != nil {
		return ""
	}
	const most = 600
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}
