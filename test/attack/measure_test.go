// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package attack

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/reconciler/control"
)

// TestLargeReleaseEnforced measures the loop of a host whose backend enforces every rule, as far as it is in this process:
// 10,000 policies (14 MB), of which one changes. The backend is the fake: what a kernel's tables cost is measured by
// test/bench. The registry serves in this process, too.
func TestLargeReleaseEnforced(t *testing.T) {
	for _, transport := range []string{"git", "oci"} {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t, transport)
			w.push(w.release(right(first), first, w.sign...))
			w.start()
			w.sync(false)
			files := right(first)
			for n := range 10_000 {
				name := fmt.Sprintf("p%05d", n)
				files[fmt.Sprintf("team%02d/%05d.yaml", n%50, n)] = append(bundlestest.Policy(name), []byte("# "+strings.Repeat("x", 1150)+"\n")...)
			}
			for _, what := range []string{"10,000 new policies", "one of them changed", "one of them changed again"} {
				w.sequence++
				files["team00/00000.yaml"] = bundlestest.Policy(fmt.Sprintf("p-changed-%d", w.sequence))
				w.push(w.release(files, w.sequence, w.sign...))
				before := used(t)
				got := w.sync(false)
				took := used(t) - before
				if got.Outcome != control.OutcomeEnforced || got.Report.Subjects[0].Rules < 10_000 {
					t.Fatalf("%s: %s %+v", what, got.Outcome, got.Report.Subjects)
				}
				t.Logf("%-26s %5.2f s CPU", what, took.Seconds())
			}
		})
	}
}

// used is the CPU time of this process.
func used(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
