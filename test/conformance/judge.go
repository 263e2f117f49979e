// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Exit statuses of the probe and of a shell line that mean something here.
const (
	exitOK     = 0
	exitDenied = 13
)

// Event is one event of the agent, its fields as text.
type Event map[string]string

// has tells whether the event has at least these fields, equal. A field that the agent leaves out is empty.
func (e Event) has(want map[string]string) bool {
	for name, value := range want {
		if e[name] != value {
			return false
		}
	}
	return true
}

// String renders the fields that tell one event from another, for a person.
func (e Event) String() string {
	var out []string
	for _, name := range []string{"PolicyName", "Action", "Operation", "Result", "Resource", "Source", "Severity", "Data"} {
		if e[name] != "" {
			out = append(out, name+": "+e[name])
		}
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// JudgeExit compares how the command ended with what the step expects.
func (st *Step) JudgeExit(code int, output string) error {
	got := Expectation(fmt.Sprintf("exit status %d", code))
	switch code {
	case exitOK:
		got = OK
	case exitDenied:
		got = Denied
	}
	if got == st.Expect {
		return nil
	}
	return fmt.Errorf("%s: expected %s, got %s%s", st, st.Expect, got, said(output))
}

func said(output string) string {
	output = strings.Join(strings.Fields(output), " ")
	if output == "" {
		return ""
	}
	if len(output) > 200 {
		output = output[:200] + "…"
	}
	return " (" + output + ")"
}

// Missing returns the expected events that are not among those seen.
func (ev *Events) Missing(seen []Event) []map[string]string {
	var missing []map[string]string
	for _, want := range ev.Want {
		if !slices.ContainsFunc(seen, func(e Event) bool { return e.has(want) }) {
			missing = append(missing, want)
		}
	}
	return missing
}

// JudgeEvents compares the events seen with those expected: own are those of the step's own processes,
// left those of processes that earlier steps left running (a step that makes one of them act may expect
// its event, but none of theirs contradicts `none`).
func (st *Step) JudgeEvents(own, left []Event) error {
	if st.Event == nil {
		return nil
	}
	if st.Event.None {
		if len(own) > 0 {
			return fmt.Errorf("%s: expected no event, got %v", st, own)
		}
		return nil
	}
	if missing := st.Event.Missing(slices.Concat(own, left)); len(missing) > 0 {
		return fmt.Errorf("%s: no event with %s; seen: %v", st, fields(missing[0]), own)
	}
	return nil
}

func fields(want map[string]string) string {
	var out []string
	for name, value := range want {
		out = append(out, fmt.Sprintf("%s: %s", name, value))
	}
	sort.Strings(out)
	return "{" + strings.Join(out, ", ") + "}"
}

// String is the step as a person would name it.
func (st *Step) String() string {
	switch {
	case st.Do != "" && st.Via != "":
		return fmt.Sprintf("%s via %s", st.Do, st.Via)
	case st.Do != "":
		return st.Do
	case st.Sh != "":
		line, _, more := strings.Cut(strings.TrimSpace(st.Sh), "\n")
		if more || len(line) > 60 {
			line = line[:min(len(line), 60)] + "…"
		}
		return "sh " + line
	case st.Apply != nil:
		return "apply"
	case st.Posture != nil:
		return "posture"
	default:
		return "agent " + string(st.Agent)
	}
}

// Gap is a gap that the agent reported: which rule of which policy is not enforced, and why.
type Gap struct {
	Policy string // kind/namespace/name or kind/name
	Rule   int    // position in the policy, -1 for all of it
	Reason string
	Detail string
}

// String is the text that expect_gap is matched against.
func (g Gap) String() string {
	return fmt.Sprintf("%s rule %d: %s: %s", g.Policy, g.Rule, g.Reason, g.Detail)
}

// JudgeGaps returns the gaps that the scenario excuses on this backend. A gap that it neither expects nor
// excuses is an error, and so is an expected one that was not reported.
func (s *Scenario) JudgeGaps(backend string, reported []Gap) (excused []Gap, err error) {
	expected := false
	for _, g := range reported {
		switch {
		case s.ExpectGap.Given() && s.ExpectGap.MatchString(g.String()):
			expected = true
		case slices.Contains(s.Gaps[backend], g.Reason):
			excused = append(excused, g)
		default:
			return nil, fmt.Errorf("a gap that is not excused here: %s", g)
		}
	}
	if s.ExpectGap.Given() && !expected {
		return nil, fmt.Errorf("no gap that matches %q; reported: %v", s.ExpectGap, reported)
	}
	return excused, nil
}

// JudgeRefusal compares the agent's answer to a release with the expected error: refusal is the error's
// text, empty when the release was accepted.
func JudgeRefusal(want Pattern, refusal string) error {
	switch {
	case !want.Given() && refusal == "":
		return nil
	case !want.Given():
		return fmt.Errorf("the release was refused: %s", refusal)
	case refusal == "":
		return fmt.Errorf("the release was accepted; expected an error that matches %q", want)
	case !want.MatchString(refusal):
		return fmt.Errorf("the release was refused with %q; expected an error that matches %q", refusal, want)
	}
	return nil
}

// Outcome is the result of one scenario on one backend.
type Outcome struct {
	ID      string
	Backend string
	// Step is the number of the step that failed; 0 means that everything before the steps failed.
	Step    int
	Failure string
	// Gap is the reason of an excused gap.
	Gap string
}

// String is the outcome's line.
func (o Outcome) String() string {
	switch {
	case o.Failure != "":
		return fmt.Sprintf("FAIL %s %s: step %d: %s", o.ID, o.Backend, o.Step, oneLine(o.Failure))
	case o.Gap != "":
		return fmt.Sprintf("gap %s %s: %s", o.ID, o.Backend, oneLine(o.Gap))
	default:
		return fmt.Sprintf("pass %s %s", o.ID, o.Backend)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Summary counts outcomes.
type Summary struct{ Passed, Failed, Gaps int }

// Add counts one more.
func (s *Summary) Add(o Outcome) {
	switch {
	case o.Failure != "":
		s.Failed++
	case o.Gap != "":
		s.Gaps++
	default:
		s.Passed++
	}
}

// String is the last line of a run.
func (s Summary) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d gaps", s.Passed, s.Failed, s.Gaps)
}
