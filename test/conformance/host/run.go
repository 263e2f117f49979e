// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/test/conformance"
	"github.com/muster-fleet/muster/test/vm"
)

// Options say what to run where.
type Options struct {
	// Scenarios is a folder of scenarios; Take says which of them, nil takes all.
	Scenarios string
	Take      func(*conformance.Scenario) bool
	Backends  []string
	Kernel    string
	// Invert names the scenarios that also run with each of their expectations turned round, or single ones of
	// those copies, by the ids that conformance.Invert gives them.
	Invert map[string]bool
	// Turn has what was seen judged a second time, against each expectation turned round.
	Turn bool
	// Out gets the lines, Log what else there is to say.
	Out, Log io.Writer
	Verbose  bool
	// Each is called with every outcome's line; nil when nobody asks.
	Each func(Line)
}

// Line is one line about one scenario.
type Line struct {
	Verdict string // pass, FAIL or gap
	ID      string
	Text    string
}

// backendLSM is the list of security modules that a backend needs at boot. A backend that does not exist
// yet is not in it.
var backendLSM = map[string]vm.LSM{"bpflsm": vm.BPF}

// Run runs the scenarios on every backend and returns the counts.
func Run(ctx context.Context, o Options) (conformance.Summary, error) {
	var total conformance.Summary
	list, err := conformance.Load(o.Scenarios)
	if err != nil {
		return total, err
	}
	list = slices.DeleteFunc(list, func(s *conformance.Scenario) bool { return o.Take != nil && !o.Take(s) })
	if len(list) == 0 {
		return total, fmt.Errorf("no scenario of %s was chosen", o.Scenarios)
	}
	stage, err := newStage(ctx, o, list)
	if err != nil {
		return total, err
	}
	defer os.RemoveAll(stage.dir)
	for _, backend := range o.Backends {
		if err := stage.run(ctx, backend, &total); err != nil {
			return total, err
		}
	}
	fmt.Fprintln(o.Out, total)
	return total, nil
}

// stage is everything that goes into a machine.
type stage struct {
	options  Options
	list     []*conformance.Scenario
	dir      string
	programs Programs
	agents   Agents
}

func newStage(ctx context.Context, o Options, list []*conformance.Scenario) (*stage, error) {
	source, err := sourceDir(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "muster-conformance-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBuild, err)
	}
	s := &stage{options: o, list: list, dir: dir}
	if s.programs, err = BuildPrograms(ctx, source, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if s.agents, err = BuildAgents(ctx, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// sourceDir is test/conformance of the module that this was built from.
func sourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/muster-fleet/muster").Output()
	if err != nil {
		return "", fmt.Errorf("%w: this runs inside the repository: %w", errBuild, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "test", "conformance"), nil
}

// run runs everything on one backend and makes sure that every scenario gets its line.
func (s *stage) run(ctx context.Context, backend string, total *conformance.Summary) error {
	said := map[string]bool{}
	report := func(line Line) {
		said[line.ID] = true
		fmt.Fprintln(s.options.Out, line.Text)
		total.Add(outcome(line))
		if s.options.Each != nil {
			s.options.Each(line)
		}
	}
	lsm, exists := backendLSM[backend]
	why := fmt.Sprintf("backend %s is not available", backend)
	if exists {
		err := s.inMachine(ctx, backend, lsm, report)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		why = "no result"
		if err != nil {
			why = err.Error()
			fmt.Fprintf(s.options.Log, "conformance: %s: %v\n", backend, err)
		}
	}
	for _, sc := range s.list {
		if !said[sc.ID] {
			o := conformance.Outcome{ID: sc.ID, Backend: backend, Failure: why}
			report(Line{Verdict: "FAIL", ID: sc.ID, Text: o.String()})
		}
	}
	return nil
}

func outcome(line Line) conformance.Outcome {
	o := conformance.Outcome{ID: line.ID}
	switch line.Verdict {
	case "FAIL":
		o.Failure = line.Text
	case "gap":
		o.Gap = line.Text
	}
	return o
}

// Where things lie in the machine.
const guestDir = "/run/muster-conformance"

func (s *stage) inMachine(ctx context.Context, backend string, lsm vm.LSM, report func(Line)) error {
	o := vm.Options{Kernel: s.options.Kernel, LSM: lsm}
	if s.options.Verbose {
		o.Console = s.options.Log
	}
	m, err := vm.Boot(ctx, o)
	if err != nil {
		return fmt.Errorf("booting: %w", err)
	}
	defer m.Close()
	inside := func(path string) string { return guestDir + "/" + filepath.Base(path) }
	files := map[string]string{}
	for _, path := range []string{
		s.programs.Probe, s.programs.Helper, s.programs.Dyntool, s.agents.First, s.agents.Second, s.agents.Inner,
	} {
		files[path] = inside(path)
	}
	scenarios, err := s.scenarioFiles()
	if err != nil {
		return err
	}
	for path, name := range scenarios {
		files[path] = guestDir + "/scenarios/" + name
	}
	if err := m.Put(files); err != nil {
		return fmt.Errorf("copying into the machine: %w", err)
	}
	args := []string{
		inside(s.agents.Inner), "-backend", backend, "-scenarios", guestDir + "/scenarios",
		"-probe", inside(s.programs.Probe), "-helper", inside(s.programs.Helper), "-dyntool", inside(s.programs.Dyntool),
		"-agents", inside(s.agents.First) + "," + inside(s.agents.Second),
	}
	if len(s.options.Invert) > 0 {
		args = append(args, "-invert", strings.Join(slices.Sorted(maps.Keys(s.options.Invert)), ","))
	}
	if s.options.Turn {
		args = append(args, "-turn")
	}
	return s.execute(ctx, m, args, report)
}

func (s *stage) execute(ctx context.Context, m *vm.Machine, args []string, report func(Line)) error {
	var complaints bytes.Buffer
	out := &lines{report: report}
	result, err := m.Run(ctx, vm.Command{Args: args, Stdout: out, Stderr: &complaints})
	if s.options.Verbose {
		s.showLog(m)
	}
	if err != nil {
		return fmt.Errorf("the machine: %w", err)
	}
	if result.Code != 0 {
		return fmt.Errorf("the runner inside ended with %d: %s", result.Code, complaints.String())
	}
	return nil
}

func (s *stage) showLog(m *vm.Machine) {
	text, err := m.ReadFile("/var/log/muster/musterd.log")
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(s.options.Log, "--- the agent's log\n%s\n", text)
}

// scenarioFiles maps the files of the chosen scenarios to names in the machine.
func (s *stage) scenarioFiles() (map[string]string, error) {
	names, err := filepath.Glob(filepath.Join(s.options.Scenarios, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing scenarios: %w", err)
	}
	chosen := map[string]bool{}
	for _, sc := range s.list {
		chosen[sc.ID] = true
	}
	out := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading a scenario: %w", err)
		}
		sc, err := conformance.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if chosen[sc.ID] {
			out[name] = filepath.Base(name)
		}
	}
	return out, nil
}

// lines cuts a stream into lines and reports those that speak of a scenario.
type lines struct {
	half   []byte
	report func(Line)
}

func (l *lines) Write(p []byte) (int, error) {
	l.half = append(l.half, p...)
	for {
		line, rest, whole := bytes.Cut(l.half, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.half = rest
		words := strings.Fields(string(line))
		if len(words) >= 3 && slices.Contains([]string{"pass", "FAIL", "gap"}, words[0]) {
			l.report(Line{Verdict: words[0], ID: words[1], Text: string(line)})
		}
	}
}
