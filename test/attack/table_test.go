// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/muster-fleet/muster/reconciler/control"
)

var update = flag.Bool("update", false, "write docs/attacks.md")

// page is the table in the documentation.
const page = "../../docs/attacks.md"

// attack is one row.
type attack struct {
	area, name string
	// want is the named error of the refusal, or "Condition" of one that is reported and refuses nothing.
	want string
	// only is the transport that the attack is about; "" is both.
	only string
	// setup changes the fleet before the host starts.
	setup func(w *world)
	// play answers the release that the attacker puts at the source; nil when it did something else.
	play func(w *world) map[string][]byte
	// rebooted says that the kernel holds nothing when the attack comes: nothing must then be in force.
	rebooted bool
	// control is the same thing done by those who may; without one it is the next good release.
	control func(w *world) map[string][]byte
}

func attacks() []attack {
	return slices.Concat(signatures(), keyless(), documents(), marks(), histories(), freshness(), paths(), limits(), contents(), succession(), tenants(), commits(), attestations(), memory(), sources())
}

// result is one attack, done.
type result struct {
	attack
	transport, got string
	inForce        error
	control        control.Outcome
}

func (r *result) refused() bool { return r.want == strings.ToLower(r.want) }

func (r *result) held() bool {
	return r.got == r.want && r.inForce == nil && r.control == control.OutcomeEnforced
}

// TestAttacks runs the table and compares it with the page.
func TestAttacks(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var results []result
	t.Run("attacks", func(t *testing.T) {
		t.Parallel()
		for _, a := range attacks() {
			for _, transport := range []string{"git", "oci"} {
				if a.only != "" && a.only != transport {
					continue
				}
				t.Run(a.area+"/"+a.name+"/"+transport, func(t *testing.T) {
					t.Parallel()
					r := run(t, a, transport)
					mu.Lock()
					defer mu.Unlock()
					results = append(results, *r)
				})
			}
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		text := render(results)
		if *update {
			if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
				t.Error(err)
			}
		}
		if old, err := os.ReadFile(page); err != nil || string(old) != text {
			t.Errorf("%s is not this table; go test ./test/attack -update writes it (%v)", page, err)
		}
	})
}

// run plays one attack against a host of its own.
func run(t *testing.T, a attack, transport string) *result {
	t.Helper()
	w := newWorld(t, transport)
	if a.setup != nil {
		a.setup(w)
	}
	if w.team != nil {
		w.team.push(w.team.release(w.team.firstFiles, 1, "shop"))
	}
	w.push(w.release(right(first), first, w.sign...))
	w.start()
	if got := w.sync(false); got.Outcome != control.OutcomeEnforced {
		t.Fatalf("the first good release: %s %+v", got.Outcome, got.Problem)
	}
	if err := w.inForce(); err != nil {
		t.Fatal(err)
	}
	r := &result{attack: a, transport: transport}
	if files := a.play(w); files != nil {
		w.push(files)
	}
	r.got = w.outcome(a.want)
	if r.inForce = w.inForce(); a.rebooted {
		r.inForce = w.nothingInForce()
	}
	if a.control == nil {
		a.control = func(w *world) map[string][]byte { return w.good() }
	}
	if files := a.control(w); files != nil {
		w.push(files)
	}
	after := w.sync(true)
	r.control = after.Outcome
	if r.control == control.OutcomeEnforced {
		if err := w.inForce(); err != nil {
			t.Errorf("the control is accepted and not in force: %v", err)
		}
	}
	if r.refused() && w.counted(r.want) == 0 {
		t.Errorf("no metric counted %q: %v", r.want, w.refused)
	}
	if !r.held() {
		t.Errorf("wanted %s, got %s; in force: %v; control: %s %+v", r.want, r.got, r.inForce, r.control, after.Problem)
	}
	return r
}

// outcome answers what the host says: the refusal's name, by both the answer and the report, or the condition.
func (w *world) outcome(want string) string {
	w.t.Helper()
	got := w.sync(false)
	said := conditions(got.Report)
	if got.Problem != nil && got.Outcome == control.OutcomeRefused {
		entry := "Refused/" + got.Problem.Name
		if got.Problem.Tenant != "" {
			entry = got.Problem.Tenant + ":" + entry
		}
		if !contains(said, entry) {
			return got.Problem.Name + ", not in the report"
		}
		return got.Problem.Name
	}
	for _, c := range said {
		if name, _, _ := strings.Cut(c, "/"); name == want {
			return want
		}
	}
	return string(got.Outcome) + " " + strings.Join(said, " ")
}

// render writes the page: each attack once, with the transports that it came over.
func render(results []result) string {
	var b strings.Builder
	held := 0
	for i := range results {
		if results[i].held() {
			held++
		}
	}
	b.WriteString("# Attacks\n\n`make attack` plays each row over the wire against a host of its own and compares the outcome with this page\n" +
		"(`go test ./test/attack -update` writes it). *Named* is the refusal's name, the same in the error, the metric\n" +
		"`muster_releases_refused_total` and the report; in capitals, a condition of the report that refuses nothing. After each,\n" +
		"the last good release must still decide, and the control, the same thing done by those who may do it, is accepted.\n\n")
	list := attacks()
	fmt.Fprintf(&b, "**%d attacks, %d runs over Git and OCI; %d held.**\n", len(list), len(results), held)
	area := ""
	for _, a := range list {
		var over []string
		for _, transport := range []string{"git", "oci"} {
			if slices.ContainsFunc(results, func(r result) bool {
				return r.area == a.area && r.name == a.name && r.transport == transport && r.held()
			}) {
				over = append(over, transport)
			}
		}
		if a.area != area {
			area = a.area
			fmt.Fprintf(&b, "\n## %s\n\n| attack | named | last good in force, control accepted |\n|---|---|---|\n", area)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", a.name, a.want, strings.Join(over, ", "))
	}
	return b.String()
}
