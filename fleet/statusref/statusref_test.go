// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/fleet"
)

func TestReportAndCollect(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	a, b := newHost(t, s, c, "web-1", all), newHost(t, s, c, "web-2", all)
	for _, h := range []*host{a, b} {
		r := testReport(h.id, c)
		if err := h.pub.Report(ctx, r); err != nil || r.Sequence != 1 {
			t.Fatalf("first report: sequence %d, %v", r.Sequence, err)
		}
	}
	collect(t, a.col, "")
	roll, st := readRoll(t, s, fleet.Collectors{Hosts: all}, c)
	if roll.Counts.Hosts != 2 || roll.Counts.States[fleet.StateEnforced] != 2 || len(st.Reports) != 2 {
		t.Fatalf("roll: %+v", roll)
	}
	if problems := fleet.CheckRows(roll, st.Reports, all, c.Now()); len(problems) > 0 {
		t.Error(problems)
	}
	readme := runGit(t, s.dir, "show", "status:README.md")
	for _, want := range []string{"# Fleet `lab`", "**2 hosts** · 2 Enforced", "| `web-1` | Enforced | `stable 1.7` | 0 | 0 | - |"} {
		if !strings.Contains(readme, want) {
			t.Errorf("README lacks %q:\n%s", want, readme)
		}
	}
	ref := runGit(t, s.dir, "for-each-ref", "--format=%(refname)", "refs/muster")
	if !strings.Contains(ref, "refs/muster/hosts/"+fleet.Shard("web-1")+"/web-1\n") {
		t.Errorf("refs: %s", ref)
	}
	runGit(t, s.dir, "fsck", "--strict")
}

// Fresh for a minute: nobody folds, at the price of one request. After it, only what is new makes a commit.
func TestAutoTakesTurns(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	a, b := newHost(t, s, c, "web-1", all), newHost(t, s, c, "web-2", all)
	if err := a.pub.Report(ctx, testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, a.col, "")
	collect(t, b.col, ReasonFresh)
	before := s.requests.Load()
	collect(t, b.col, ReasonFresh)
	if n := s.requests.Load() - before; n != 1 {
		t.Errorf("a fresh status costs %d requests", n)
	}
	c.advance(2 * time.Minute)
	collect(t, b.col, ReasonUnchanged)
	if err := b.pub.Report(ctx, testReport("web-2", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, b.col, "")
	if n := strings.TrimSpace(runGit(t, s.dir, "rev-list", "--count", "status")); n != "2" {
		t.Errorf("%s commits on status", n)
	}
	c.advance(11 * time.Minute)
	collect(t, a.col, "") // an unchanged roll is written again, so that readers see it lives
}

// A push costs two requests, and the second report of a host, too.
func TestPushCost(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	for i := range 3 {
		before := s.requests.Load()
		if err := h.pub.Report(ctx, testReport("web-1", c)); err != nil {
			t.Fatal(err)
		}
		if n := s.requests.Load() - before; n != 2 {
			t.Errorf("report %d: %d requests", i+1, n)
		}
		c.advance(time.Minute)
	}
	if h.pub.Tries() != 3 {
		t.Errorf("%d tries for 3 reports", h.pub.Tries())
	}
}

func TestSpool(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	s.down.Store(true)
	for range 3 {
		err := h.pub.Report(ctx, testReport("web-1", c))
		var e *Error
		if !errors.As(err, &e) || e.Fault != FaultUnreachable {
			t.Fatalf("report while down: %v", err)
		}
	}
	// The agent starts anew: what waits is on disk.
	h.pub = NewPublisher(h.pub.cfg)
	if err := h.pub.Flush(ctx); err == nil {
		t.Fatal("flush while down")
	}
	s.down.Store(false)
	if err := h.pub.Flush(ctx); err != nil || h.pub.Pending() {
		t.Fatalf("flush: %v", err)
	}
	before := s.requests.Load()
	if err := h.pub.Flush(ctx); err != nil || s.requests.Load() != before {
		t.Fatalf("a second flush speaks to nobody: %v", err)
	}
	if _, err := h.col.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	roll, _ := readRoll(t, s, fleet.Collectors{Hosts: all}, c)
	if got := roll.Hosts[0].Sequence; got != 3 {
		t.Errorf("sequence %d arrived, want the newest, 3", got)
	}
}

// A host that is set back to an older state goes on from its own last report and says that it forgot.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	for range 5 {
		if err := h.pub.Report(ctx, testReport("web-1", c)); err != nil {
			t.Fatal(err)
		}
		c.advance(time.Minute)
	}
	cfg := h.pub.cfg
	cfg.Dir = t.TempDir()
	restored := NewPublisher(cfg)
	r := testReport("web-1", c)
	if err := restored.Report(ctx, r); err != nil {
		t.Fatal(err)
	}
	if r.Sequence != 6 || len(r.Conditions) != 1 || r.Conditions[0].Type != fleet.ConditionStateLost {
		t.Errorf("restored host reports %d with %v", r.Sequence, r.Conditions)
	}
	r = testReport("web-1", c)
	if err := restored.Report(ctx, r); err != nil || r.Sequence != 7 || len(r.Conditions) != 0 {
		t.Errorf("its next report: %d, %v, %v", r.Sequence, r.Conditions, err)
	}
}

// One key in use on two machines: no report is lost, no sequence is used twice, and both say what they see.
func TestKeyInUseTwice(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	cfg := h.pub.cfg
	cfg.Dir = t.TempDir()
	const each = 4
	var wg sync.WaitGroup
	var warned atomic.Int64
	for i, pub := range []*Publisher{h.pub, NewPublisher(cfg)} {
		wg.Go(func() {
			for range each {
				r := testReport("web-1", c)
				r.Kernel = fmt.Sprint("machine ", i) // the same words at the same second would be the same report
				if err := pub.Report(context.Background(), r); err != nil {
					t.Error(err)
				}
				warned.Add(int64(len(r.Conditions)))
			}
		})
	}
	wg.Wait()
	if warned.Load() == 0 {
		t.Error("nobody noticed")
	}
	collect(t, h.col, "")
	roll, _ := readRoll(t, s, fleet.Collectors{Hosts: enrol(t, "web-1")}, c)
	if got := roll.Hosts[0].Sequence; got != 2*each {
		t.Errorf("sequence %d after %d reports", got, 2*each)
	}
}

// A host whose disk is full reports all the same, and says so; what it could not remember it finds on the remote.
func TestSpoolOnFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, to mount a small file system")
		}
		t.Skip("needs root, to mount a small file system")
	}
	ctx, s, c := context.Background(), newServer(t), newClock()
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	cfg := h.pub.cfg
	cfg.Dir = t.TempDir()
	if err := unix.Mount("tmpfs", cfg.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cfg.Dir, unix.MNT_DETACH) })
	pub := NewPublisher(cfg)
	report := func(wantSequence int64, wantConditions ...string) {
		t.Helper()
		r := testReport("web-1", c)
		if err := pub.Report(ctx, r); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, condition := range r.Conditions {
			got = append(got, condition.Type+" "+condition.Error)
		}
		if r.Sequence != wantSequence || !slices.Equal(got, wantConditions) {
			t.Fatalf("report %d with %q, want %d with %q", r.Sequence, got, wantSequence, wantConditions)
		}
		c.advance(time.Minute)
	}
	report(1)
	fill := filepath.Join(cfg.Dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	report(2, "Trouble spool")
	report(3, "Trouble spool")
	pub = NewPublisher(cfg) // restarted: it remembers the first report only
	report(4, "Trouble spool", "StateLost ")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	report(5)
	pub = NewPublisher(cfg)
	report(6)
}

// A spool that was torn anywhere is known to be lost, and the host goes on above what it reported before.
func TestTornSpool(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	if err := h.pub.Report(ctx, testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.pub.cfg.Dir, spoolName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(1)
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, lost, err := loadSpool(h.pub.cfg.Dir); err != nil || !lost {
			t.Fatalf("cut at %d: lost %v, %v", cut, lost, err)
		}
		if cut%200 > 0 {
			continue
		}
		r := testReport("web-1", c)
		if err := NewPublisher(h.pub.cfg).Report(ctx, r); err != nil || r.Sequence <= last || len(r.Conditions) != 1 {
			t.Fatalf("cut at %d: sequence %d after %d, %v, %v", cut, r.Sequence, last, r.Conditions, err)
		}
		last = r.Sequence
	}
}

// Fifty hosts report and collect at once: every report arrives, every ref takes one push, and of those who
// fold at the same moment one wins while the others leave it at that.
func TestStorm(t *testing.T) {
	t.Parallel()
	storm(t, 50, true)
}

// A thousand hosts report at once, and one collector folds them (PERFORMANCE: 0 lost, at most 1.05 tries a
// push, all in 30 s).
func BenchmarkThousandHosts(b *testing.B) {
	for range b.N {
		took := storm(b, 1000, false)
		b.ReportMetric(took.Seconds(), "s/all-reported")
	}
}

func storm(t testing.TB, n int, auto bool) time.Duration {
	t.Helper()
	s, c := newServer(t), newClock()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("host-%04d.example.org", i)
	}
	all := enrol(t, ids...)
	hosts := make([]*host, n)
	for i, id := range ids {
		hosts[i] = newHost(t, s, c, id, all)
	}
	start := time.Now()
	wrote := reportAll(t, hosts, c, auto)
	took := time.Since(start)
	tries := 0
	for _, h := range hosts {
		tries += h.pub.Tries()
	}
	t.Logf("%d hosts in %v: %d pushes, %d folds written, %d requests", n, took, tries, wrote, s.requests.Load())
	if tries*100 > n*105 {
		t.Errorf("%d tries for %d reports", tries, n)
	}
	if auto {
		if commits := strings.TrimSpace(runGit(t, s.dir, "rev-list", "--count", "status")); commits != fmt.Sprint(wrote) {
			t.Errorf("%s commits on status, %d collectors say they wrote", commits, wrote)
		}
	}
	c.advance(2 * time.Minute)
	hosts[0].col.cfg.MaxHosts = 0
	if res, err := hosts[0].col.Collect(context.Background()); err != nil || res.Skipped > 0 {
		t.Fatalf("last collect: %+v, %v", res, err)
	}
	roll, st := readRoll(t, s, fleet.Collectors{Hosts: all}, c)
	if roll.Counts.Hosts != n || len(st.Reports) != n || roll.Counts.States[fleet.StateEnforced] != n {
		t.Errorf("%d of %d hosts arrived", roll.Counts.Hosts, n)
	}
	runGit(t, s.dir, "fsck", "--strict")
	return took
}

// reportAll lets every host report at once, then collect where that is asked for, and counts the folds.
func reportAll(t testing.TB, hosts []*host, c *clock, auto bool) int64 {
	t.Helper()
	var wrote atomic.Int64
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() {
			if err := h.pub.Report(context.Background(), testReport(h.id, c)); err != nil {
				t.Errorf("%s: %v", h.id, err)
				return
			}
			if !auto {
				return
			}
			res, err := h.col.Collect(context.Background())
			if err != nil {
				t.Errorf("%s: collect: %v", h.id, err)
			}
			if res.Wrote {
				wrote.Add(1)
			}
		})
	}
	wg.Wait()
	return wrote.Load()
}
