// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/vm"
)

const (
	agentInLab = "/usr/local/sbin/musterd"
	pageInLab  = "/share/bad-input.md"
)

// row is one input.
type row struct {
	area, input string
	// want is the condition in the host's report with its error name ("Refused/rollback"; several are joined
	// with " + "), or, where the agent does not start, words of its message ("exit: …").
	want string
	// plant puts the input in its place; the agent runs.
	plant func(w *world)
	// lab: without a backend there is nothing to see.
	lab bool
}

// inLab leaves a row out where nothing enforces.
func inLab(r row) row {
	r.lab = true
	return r
}

// measured is what a row got.
type measured struct {
	row
	got       string
	enforced  error
	recovered error
	took      time.Duration
	planted   time.Duration
}

func rows() []row {
	all := slices.Concat(documentRows(), trustRows(), fileRows(), signatureRows(), freshRows(), treeRows(), repositoryRows(),
		policyRows(), configRows(), trustFileRows(), labelRows(), stateRows(), startRows())
	return slices.DeleteFunc(all, func(r row) bool { return r.lab && !vm.Inside() })
}

// TestTable feeds every input to one agent, one after the other.
func TestTable(t *testing.T) {
	t.Parallel()
	binary := agentInLab
	if !vm.Inside() {
		binary = build(t)
	}
	w := newWorld(t, binary)
	w.publish()
	w.run()
	w.must(w.heal())
	var out []measured
	for _, r := range rows() { //nolint:paralleltest // one agent meets one input after the other
		t.Run(r.area+"/"+r.input, func(t *testing.T) {
			w.at(t)
			m := measured{row: r, got: "the row did not end"}
			defer func() { out = append(out, m) }()
			w.face(&m)
			t.Logf("took %v: planted %v", m.took, m.planted)
			if m.got != r.want || m.enforced != nil || m.recovered != nil {
				t.Errorf("got %q, wanted %q; still enforced: %v; recovered: %v", m.got, r.want, m.enforced, m.recovered)
				w.mend()
			}
		})
	}
	w.at(t)
	text := render(out)
	t.Logf("\n%s", text)
	if vm.Inside() {
		if err := os.WriteFile(pageInLab, []byte(text), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "musterd")
	if err := vm.BuildStatic(t.Context(), binary, "build", "github.com/muster-fleet/muster/cmd/musterd"); err != nil {
		t.Fatal(err)
	}
	return binary
}

// face plants the input and looks at the three things.
func (w *world) face(m *measured) {
	w.t.Helper()
	begun := time.Now()
	m.plant(w)
	m.planted = time.Since(begun)
	m.got = w.answer(m.want)
	m.enforced = w.enforced()
	m.recovered = w.heal()
	m.took = time.Since(begun)
}

// mend makes what a failed row left behind no other row's business.
func (w *world) mend() {
	w.t.Helper()
	w.kill()
	w.sequence += 20 // far above whatever was accepted and should not have been
	if err := w.heal(); err != nil {
		w.t.Errorf("not even after a restart: %v\n%s", err, w.said)
	}
}

// answer is what the agent said: the wanted condition if it is there, otherwise all of them.
func (w *world) answer(want string) string {
	w.t.Helper()
	if words, exits := strings.CutPrefix(want, "exit: "); exits {
		if strings.Contains(w.said.String(), words) {
			return want
		}
		return "exit: " + w.said.String()
	}
	got := w.conditions()
	for part := range strings.SplitSeq(want, " + ") {
		if !slices.Contains(got, part) {
			return strings.Join(got, ", ")
		}
	}
	return want
}

// Ways to plant.

// looked makes the agent look at its source; the answer is in the report.
func (w *world) looked() {
	w.t.Helper()
	_, err := w.sync(false)
	w.must(err)
}

// reloaded makes the agent read its configuration, which may fail; the answer is in the report.
func (w *world) reloaded() {
	w.t.Helper()
	if err := w.client.Reload(w.t.Context()); err != nil {
		w.t.Log(err)
	}
}

// pushed is a row for a release that w.push takes.
func pushed(area, input, want string, of func(w *world) map[string][]byte) row {
	return row{area: area, input: input, want: "Refused/" + want, plant: func(w *world) {
		w.push(of(w))
		w.looked()
	}}
}

// render writes the table as the page.
func render(out []measured) string {
	var b strings.Builder
	good := 0
	for _, m := range out {
		if m.got == m.want && m.enforced == nil && m.recovered == nil {
			good++
		}
	}
	b.WriteString("# What bad input gets\n\nMeasured, not promised: `go test -tags measure ./test/hostile -run TestInVM -update` boots Linux 6.12, feeds each input to the real `musterd` with BPF-LSM, and writes this page.\n\n" +
		"- **Named error**: the condition in the host's report and its error, or what a `musterd` that does not start says.\n" +
		"- **Still enforced**: while the input is in its place, another process than the agent gets `EACCES` for the file that the last good release blocks, and may read others.\n" +
		"- **Recovered**: with good input again, the next good release is accepted and enforced, and nothing is reported as wrong any more.\n\n")
	fmt.Fprintf(&b, "**%d inputs: %d got their named error, kept the last good ruleset enforced and lost nothing.**\n", len(out), good)
	area := ""
	for _, m := range out {
		if m.area != area {
			area = m.area
			fmt.Fprintf(&b, "\n## %s\n\n| Input | Named error | Still enforced | Recovered |\n|---|---|---|---|\n", area)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", m.input, strings.ReplaceAll(m.got, "|", "/"), yes(m.enforced), yes(m.recovered))
	}
	return b.String()
}

func yes(err error) string {
	if err != nil {
		return "NO: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return "yes"
}
