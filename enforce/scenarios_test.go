// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

// TestScenarios reads the conformance scenarios of policies, ranks and lifecycle and asks the reference
// decision, instead of a kernel, what each step comes to. It proves that parser, compiler and decision agree
// with the promises; that the kernel does, too, is for the conformance runner. Steps that need more than a
// decision (agents, shells, networks, held descriptors) are left out, and counted.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../test/conformance/scenarios/[PRL][0-9]*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	checked, left := 0, 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var s scenario
		if err := yaml.Unmarshal(data, &s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for i, st := range s.Steps {
			switch ops := st.operations(); {
			case st.Apply != nil:
				if !st.refused {
					s.Policies = st.Apply
				}
			case st.Posture != nil:
				s.Posture = st.Posture
			case ops == nil || s.beyond():
				left++
			default:
				checked++
				if problem := st.check(s.compile(t), ops); problem != "" {
					t.Errorf("%s step %d (%s): %s", s.ID, i+1, st.Do, problem)
				}
			}
		}
	}
	t.Logf("%d steps checked, %d left out", checked, left)
	if checked < 100 {
		t.Errorf("only %d steps checked", checked)
	}
}

type scenario struct {
	ID        string
	Subject   string
	Posture   map[string]enforce.Posture
	Policies  []yaml.Node
	ExpectGap string `yaml:"expect_gap"`
	Steps     []step
}

type step struct {
	Do, Via, As, Expect string
	TTY                 bool
	Event               yaml.Node
	Apply               []yaml.Node
	ExpectError         string `yaml:"expect_error"`
	Posture             map[string]enforce.Posture
	refused             bool
}

func (s *step) UnmarshalYAML(n *yaml.Node) error {
	type plain step
	if err := n.Decode((*plain)(s)); err != nil {
		return err
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "apply" && s.Apply == nil {
			s.Apply = []yaml.Node{} // apply: [] removes everything
		}
	}
	s.refused = s.ExpectError != ""
	return nil
}

// beyond says whether the scenario is about more than this package decides: a gap, or presets.
func (s *scenario) beyond() bool {
	return s.ExpectGap != "" || slices.ContainsFunc(s.Policies, func(p yaml.Node) bool {
		var policy struct{ Spec struct{ Presets []yaml.Node } }
		return p.Decode(&policy) == nil && len(policy.Spec.Presets) > 0
	})
}

// fixtures are the symlinks that every subject has.
var fixtures = map[string]string{
	"/opt/t/link-to-secret": "/opt/t/secret.txt", "/bin/true": "/usr/bin/true", "/bin/": "/usr/bin/", "/bin/bash": "/usr/bin/bash",
}

func (s *scenario) compile(t *testing.T) *enforce.Ruleset {
	t.Helper()
	in := enforce.CompileInput{
		Subject: enforce.Host, Mode: enforce.ModeEnforce, Capabilities: enforcetest.Capabilities("reference"),
		Postures: enforce.Postures{File: s.Posture["file"], Network: s.Posture["network"], Capabilities: s.Posture["capabilities"]}, Aliases: fixtures,
	}
	in.Capabilities.Features[enforce.FeatureAllowedArgs] = true
	if s.Subject == "container" {
		in.Subject = container
	}
	for i := range s.Policies {
		data, err := yaml.Marshal(&s.Policies[i])
		if err != nil {
			t.Fatal(err)
		}
		list, err := policies.ParseDocument(s.ID, data)
		if err != nil {
			t.Fatalf("%s: %v", s.ID, err)
		}
		in.Policies = append(in.Policies, list...)
	}
	in.Policies = policies.Select(policies.NewSet(in.Policies), s.subject())
	rs, _ := enforce.Compile(in)
	if held := enforce.CheckProtect(rs, enforce.DefaultProtect(debian(), agent())); held != "" && rs.Subject == enforce.Host {
		rs = rs.Hold(held)
	}
	return rs
}

// TestScenariosAreNotHeld: host safety holds what would lock somebody out, and no other ruleset of any scenario.
func TestScenariosAreNotHeld(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../test/conformance/scenarios/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("only %d scenarios: %v", len(files), err)
	}
	rulesets, held := 0, 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var s scenario
		if err := yaml.Unmarshal(data, &s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		variants := [][]yaml.Node{s.Policies}
		for _, st := range s.Steps {
			if st.Apply != nil && !st.refused {
				variants = append(variants, st.Apply)
			}
		}
		for i := range variants {
			s.Policies = variants[i]
			rs := s.compile(t)
			rulesets++
			if locksOut := s.ID == "L16" && i == 0; locksOut != (rs.Held != "") {
				t.Errorf("%s, policies %d: held %q", s.ID, i, rs.Held)
			} else if locksOut {
				held++
			}
		}
	}
	if held != 1 {
		t.Errorf("of %d rulesets %d were held", rulesets, held)
	}
}

// subject is the runner's subject as policies select it.
func (s *scenario) subject() policies.Subject {
	if s.Subject == "container" {
		return policies.Subject{Namespace: "container_namespace", ContainerName: "probe", Labels: map[string]string{"app": "probe"}}
	}
	return policies.Subject{Host: true, Labels: map[string]string{"kubernetes.io/hostname": "lab", "kubearmor.io/hostname": "lab"}}
}

// operations are what the probe's operation is to the kernel, nil when a decision cannot stand for it.
func (s *step) operations() []enforce.Operation {
	words := strings.Fields(s.Do)
	if len(words) < 2 || s.Expect == "" {
		return nil
	}
	arg := words[1:]
	switch words[0] {
	case "exec":
		o := s.operation(process, arg[0], false)
		o.Args = arg[1:]
		return []enforce.Operation{o}
	case "exec-memfd":
		return []enforce.Operation{s.operation(process, "", false)}
	case "read", "list", "read-openat2", "read-io_uring", "read-handle":
		return []enforce.Operation{s.operation(file, arg[0], true)}
	case "chdir-read":
		return []enforce.Operation{s.operation(file, path.Join(arg[0], arg[1]), true)}
	case "write", "append", "rdwr-mmap", "truncate", "ftruncate", "create", "unlink", "mkdir", "rmdir", "mknod", "chmod", "chown", "setxattr":
		return []enforce.Operation{s.operation(file, arg[0], false)}
	case "rename", "link":
		return []enforce.Operation{s.operation(file, arg[0], false), s.operation(file, arg[1], false)}
	case "symlink":
		return []enforce.Operation{s.operation(file, arg[1], false)}
	}
	return nil
}

func (s *step) operation(class policies.Class, object string, reading bool) enforce.Operation {
	owner := "root"
	if strings.HasPrefix(object, "/opt/t/user1/") {
		owner = "user1"
	}
	as, via := s.As, s.Via
	if as == "" {
		as = "root"
	}
	if via == "" {
		via = "/opt/t/bin/probe"
	}
	if strings.HasPrefix(s.Do, "create") || strings.HasPrefix(s.Do, "mk") {
		owner = as
	}
	if resolved, ok := fixtures[object]; ok {
		object = resolved
	}
	return enforce.Operation{
		Class: class, Path: object, Read: reading, Owner: as == owner, Terminal: s.TTY,
		Source: enforce.ProcessSource{Executable: via},
	}
}

// check decides the operations until one is denied, and says what differs from the promise.
func (s *step) check(rs *enforce.Ruleset, ops []enforce.Operation) string {
	outcome, events := "ok", []string{}
	for _, o := range ops {
		d := rs.Decide(o)
		events = append(events, eventsOf(rs, d)...)
		if d.Verdict == enforce.Deny {
			outcome = "denied"
			break
		}
	}
	if outcome != s.Expect {
		return fmt.Sprintf("%s, want %s", outcome, s.Expect)
	}
	if s.Event.Kind == 0 {
		return ""
	}
	if s.Event.Value == "none" {
		if len(events) > 0 {
			return fmt.Sprintf("events %q, want none", events)
		}
		return ""
	}
	wanted := []*yaml.Node{&s.Event}
	if s.Event.Kind == yaml.SequenceNode {
		wanted = s.Event.Content
	}
	for _, w := range wanted {
		var event struct {
			PolicyName string `yaml:"PolicyName"`
			Action     string `yaml:"Action"`
		}
		if err := w.Decode(&event); err != nil {
			return err.Error()
		}
		found := slices.ContainsFunc(events, func(e string) bool {
			name, action, _ := strings.Cut(e, " ")
			return name == event.PolicyName && (event.Action == "" || event.Action == action)
		})
		if !found {
			return fmt.Sprintf("events %q, want %+v", events, event)
		}
	}
	return ""
}

// eventsOf are the events of a decision, as policy and action.
func eventsOf(rs *enforce.Ruleset, d enforce.Decision) []string {
	var events []string
	denied, would := d.Verdict == enforce.Deny, d.WouldDeny
	switch {
	case d.Rule >= 0 && denied:
		events = append(events, rs.Rules[d.Rule].Policy.Name+" Block")
	case d.Rule >= 0 && would:
		events = append(events, rs.Rules[d.Rule].Policy.Name+" Audit (Block)")
	case d.Posture && denied:
		events = append(events, "DefaultPosture Block")
	case d.Posture:
		events = append(events, "DefaultPosture Audit")
	}
	for _, a := range d.Audits {
		events = append(events, rs.Rules[a].Policy.Name+" Audit")
	}
	for _, run := range d.DryRuns {
		name := rs.Rules[run.Rule].Policy.Name
		if run.Posture {
			name = "DefaultPosture"
		}
		events = append(events, name+" Audit (Block)")
	}
	return events
}
