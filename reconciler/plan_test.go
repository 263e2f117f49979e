// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

func ruleset(subject enforce.SubjectID, paths ...string) *enforce.Ruleset {
	rs := &enforce.Ruleset{Subject: subject, Mode: enforce.ModeEnforce}
	for i, path := range paths {
		rs.Rules = append(rs.Rules, enforce.Rule{
			Policy: policies.ID{Kind: policies.KindHost, Name: "p"}, Objects: []string{path},
			Rule: policies.Rule{Index: i, Class: policies.ClassFile, Action: policies.ActionBlock, Object: policies.Object{Kind: policies.ObjectPath, Value: path}},
		})
	}
	return rs
}

func stateOf(rulesets ...*enforce.Ruleset) enforce.State {
	state := enforce.State{Subjects: map[enforce.SubjectID]enforce.SubjectState{}}
	for _, rs := range rulesets {
		state.Subjects[rs.Subject] = enforce.SubjectState{Digest: rs.Digest(), Intact: true, Mode: rs.Mode}
	}
	return state
}

// kinds is a plan in short: "attach publish(host) withdraw(c1)".
func kinds(p Plan) string {
	var out []string
	for _, step := range Describe(p, nil, nil, nil).Steps {
		text := step.Kind
		if step.Subject != "" {
			text += "(" + string(step.Subject) + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestNewPlan(t *testing.T) {
	t.Parallel()
	host, other, empty := ruleset(enforce.Host, "/a"), ruleset(enforce.Host, "/b"), ruleset(enforce.Host)
	container := ruleset("c1", "/a")
	broken := func(s enforce.State) enforce.State {
		s.Components = []enforce.Component{{Kind: "link", Name: "l", Condition: enforce.DriftDetached}}
		return s
	}
	whole := func(s enforce.State) enforce.State {
		s.Components = []enforce.Component{{Kind: "link", Name: "l"}}
		return s
	}
	torn := stateOf(host)
	torn.Subjects[enforce.Host] = enforce.SubjectState{Digest: host.Digest(), Mode: enforce.ModeEnforce}
	audit := stateOf(host)
	audit.Subjects[enforce.Host] = enforce.SubjectState{Digest: host.Digest(), Intact: true, Mode: enforce.ModeAudit}
	told := ruleset(enforce.Host)
	told.Visible = []policies.Class{policies.ClassFile}
	known := func(list ...*enforce.Ruleset) Want { return Want{Known: true, Rulesets: list} }
	for name, c := range map[string]struct {
		want Want
		have enforce.State
		plan string
	}{
		"as it should be":                  {known(host), stateOf(host), ""},
		"first":                            {known(host), broken(stateOf()), "attach publish(host)"},
		"another ruleset":                  {known(host), stateOf(other), "publish(host)"},
		"torn contents":                    {known(host), torn, "publish(host)"},
		"weaker mode":                      {known(host), audit, "publish(host)"},
		"a link is gone":                   {known(host), broken(stateOf(host)), "attach"},
		"one that is not declared":         {known(host), stateOf(host, container), "withdraw(c1)"},
		"publish before withdraw":          {known(host), stateOf(container), "publish(host) withdraw(c1)"},
		"two subjects":                     {known(container, host), stateOf(), "publish(c1) publish(host)"},
		"nothing asked, nothing there":     {known(empty), stateOf(), ""},
		"nothing asked but to be told":     {known(told), stateOf(), "publish(host)"},
		"nothing asked any more":           {known(empty), stateOf(host), "publish(host)"},
		"nothing known removes nothing":    {Want{}, stateOf(host, container), ""},
		"nothing known repairs what holds": {Want{}, broken(stateOf(host)), "attach"},
		"nothing known, nothing there":     {Want{}, broken(stateOf()), ""},
		"taking over":                      {Want{Known: true, Rulesets: []*enforce.Ruleset{host}, Adopt: true}, whole(stateOf(host)), "attach"},
		"taking over nothing":              {Want{Adopt: true}, whole(stateOf()), ""},
		"off after a start":                {Want{Off: true, Adopt: true}, whole(stateOf(host)), "attach withdraw(host)"},
		"off":                              {Want{Off: true}, broken(stateOf(host, container)), "withdraw(c1) withdraw(host)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := kinds(NewPlan(c.want, c.have)); got != c.plan {
				t.Errorf("got %q, wanted %q", got, c.plan)
			}
		})
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gate gate
		open bool
	}{
		{gate{mode: enforce.ModeEnforce}, true},
		{gate{mode: enforce.ModeEnforce, changed: true}, true},
		{gate{mode: enforce.ModeAudit}, false},
		{gate{mode: enforce.ModeAudit, changed: true}, true},
		{gate{mode: enforce.ModeOff, changed: true}, true},
		{gate{mode: enforce.ModeOff}, false},
		{gate{mode: enforce.ModeEnforce, changed: true, suspended: true}, false},
		{gate{mode: enforce.ModeEnforce, changed: true, blocked: true}, false},
	} {
		if c.gate.open() != c.open {
			t.Errorf("%+v: %v", c.gate, !c.open)
		}
	}
}

func TestRemovesTooMuch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, after []string
		tooMuch       bool
	}{
		{nil, nil, false},
		{nil, []string{"/a"}, false},
		{[]string{"/a"}, nil, true},
		{[]string{"/a"}, []string{"/b"}, false}, // an edit
		{[]string{"/a", "/b"}, []string{"/a"}, false},
		{[]string{"/a", "/b", "/c"}, []string{"/a"}, true},
		{[]string{"/a", "/b", "/c", "/d"}, []string{"/e", "/f"}, false},
		{[]string{"/a", "/b", "/c", "/d"}, []string{"/e"}, true},
		{[]string{"/a", "/b", "/c", "/d"}, []string{"/a", "/b", "/c", "/d", "/e"}, false},
	} {
		if got := removesTooMuch(ruleset(enforce.Host, c.before...), ruleset(enforce.Host, c.after...)); got != c.tooMuch {
			t.Errorf("%v -> %v: %v", c.before, c.after, got)
		}
	}
}

var errStep = errors.New("no")

// recorder is a backend that writes down its steps and fails at one.
type recorder struct {
	ObserveOnly
	steps  []string
	failAt int
}

func (r *recorder) Apply(_ context.Context, step enforce.Step) error {
	if len(r.steps) == r.failAt {
		r.failAt = -1
		return errStep
	}
	r.steps = append(r.steps, kinds(Plan{Steps: []enforce.Step{step}}))
	return nil
}

// TestUndo: the steps before a failed one are taken back, last first, as far as what was there is known.
func TestUndo(t *testing.T) {
	t.Parallel()
	back := &recorder{failAt: 3}
	e := executor{backend: back, dir: t.TempDir(), now: func() time.Time { return time.Unix(1, 0) }, troubled: func(err error) { t.Error(err) }}
	plan := Plan{Steps: []enforce.Step{
		enforce.StepAttach{},
		enforce.StepPublish{Ruleset: ruleset("c1", "/x")},
		enforce.StepPublish{Ruleset: ruleset(enforce.Host, "/x")},
		enforce.StepWithdraw{Subject: "c2"},
	}}
	before := map[enforce.SubjectID]*enforce.Ruleset{enforce.Host: ruleset(enforce.Host, "/old"), "c2": ruleset("c2", "/old")}
	err := e.execute(t.Context(), plan, before)
	var step *StepError
	if !errors.As(err, &step) || !errors.Is(err, errStep) || step.Name() != "apply" {
		t.Fatalf("%v", err)
	}
	want := "attach publish(c1) publish(host) publish(host)"
	if got := strings.Join(back.steps, " "); got != want {
		t.Errorf("got %q, wanted %q", got, want)
	}
	journal, err := e.interrupted()
	if err != nil || journal == nil || journal.Done != 3 || journal.Undone != 1 || !strings.Contains(journal.Error, "no") {
		t.Errorf("journal %+v, %v", journal, err)
	}
	if again, err := e.interrupted(); again != nil || err != nil {
		t.Errorf("journal read twice: %+v, %v", again, err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var b backoff
	now := time.Unix(0, 0)
	least := func() float64 { return 0 }
	most := func() float64 { return 0.999999 }
	var waits []string
	for range 9 {
		waits = append(waits, fmt.Sprint(b.fail(now, most).Sub(now).Round(time.Second)))
	}
	if got := strings.Join(waits, " "); got != "1s 2s 4s 8s 16s 32s 1m0s 1m0s 1m0s" {
		t.Error(got)
	}
	if wait := b.fail(now, least).Sub(now); wait != backoffMost/2 || !b.blocked(now) || b.blocked(now.Add(wait)) {
		t.Error(wait)
	}
	b.succeed()
	if b.blocked(now) {
		t.Error("still blocked")
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	var waiting *WaitingError
	var stalled *StalledError
	if err := classify(errStep, 1, time.Unix(9, 0)); !errors.As(err, &waiting) || !errors.Is(err, errStep) {
		t.Error(err)
	}
	if err := classify(errStep, stalledAfter, time.Unix(9, 0)); !errors.As(err, &stalled) {
		t.Error(err)
	}
}

// TestJournalIsAdvisory: a disk that takes no journal does not keep the plan from being carried out.
func TestJournalIsAdvisory(t *testing.T) {
	t.Parallel()
	back := &recorder{failAt: -1}
	troubles := 0
	e := executor{
		backend: back, dir: filepath.Join(t.TempDir(), "is not there"), now: func() time.Time { return time.Unix(1, 0) },
		troubled: func(error) { troubles++ },
	}
	if err := e.execute(t.Context(), Plan{Steps: []enforce.Step{enforce.StepPublish{Ruleset: ruleset(enforce.Host, "/a")}}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(back.steps) != 1 || troubles == 0 {
		t.Errorf("steps %v, %d troubles told", back.steps, troubles)
	}
}
