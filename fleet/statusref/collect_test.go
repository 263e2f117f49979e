// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// pushRef puts any commit on any ref, as somebody with the hosts' credential could.
func pushRef(t testing.TB, s *server, ref string, files map[string]string) {
	t.Helper()
	work := t.TempDir()
	runGit(t, work, "init", "-q")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(work, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runGit(t, work, "add", "-A")
	runGit(t, work, "commit", "-q", "--allow-empty", "-m", "x")
	runGit(t, work, "push", "-q", "-f", s.dir, "HEAD:"+ref)
}

// Whatever lies on other refs, an honest host's report is folded, and what is rejected has a reason.
func TestHostileRefs(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	h := newHost(t, s, c, "web-1", all)
	if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	ref := func(id string) string { return "refs/muster/hosts/" + fleet.Shard(id) + "/" + id }
	report := runGit(t, s.dir, "show", ref("web-1")+":report.json")
	sig := runGit(t, s.dir, "show", ref("web-1")+":report.json.sig")
	pushRef(t, s, ref("garbage"), map[string]string{"report.json": "x", "report.json.sig": "y"})
	pushRef(t, s, ref("empty"), nil)
	pushRef(t, s, ref("more"), map[string]string{"report.json": report, "report.json.sig": sig, "more": ""})
	pushRef(t, s, ref("web-2"), map[string]string{"report.json": report, "report.json.sig": sig})
	pushRef(t, s, ref("bomb"), map[string]string{"report.json": strings.Repeat("\x00", 8<<20), "report.json.sig": ""})
	pushRef(t, s, ref("bomb2"), map[string]string{"report.json": strings.Repeat("a", fleet.MaxReport+1), "report.json.sig": ""})
	pushRef(t, s, "refs/muster/hosts/zz/web-1", map[string]string{"report.json": report, "report.json.sig": sig})
	pushRef(t, s, "refs/muster/hosts/web-1", map[string]string{"report.json": report})
	runGit(t, s.dir, "update-ref", ref("tree"), strings.TrimSpace(runGit(t, s.dir, "rev-parse", ref("web-1")+"^{tree}")))
	runGit(t, s.dir, "tag", "-a", "-m", "x", "t", ref("web-1"))
	runGit(t, s.dir, "update-ref", ref("tag"), "refs/tags/t")

	res := collect(t, h.col, "")
	if res.Roll.Counts.Hosts != 1 || res.Roll.Hosts[0].Host != "web-1" || res.Roll.Hosts[0].Has(fleet.ConditionReplayed) {
		t.Errorf("hosts: %+v", res.Roll.Hosts)
	}
	want := map[string]string{
		"garbage": "no-signature", "empty": "no-signature", "more": "no-signature", "web-2": "misplaced",
		"bomb": "too-large", "bomb2": "too-large", "tree": "no-signature", "tag": "no-signature",
	}
	for _, x := range res.Roll.Rejected {
		if want[x.Ref] != x.Reason {
			t.Errorf("%s: %s, want %q", x.Ref, x.Reason, want[x.Ref])
		}
		delete(want, x.Ref)
	}
	if len(want) > 0 {
		t.Errorf("not rejected: %v", want)
	}
}

// A host that pushes between the advertisement and the fetch makes git answer "not our ref" for everybody.
func TestCollectWhileHostsPush(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	a, b := newHost(t, s, c, "web-1", all), newHost(t, s, c, "web-2", all)
	for _, h := range []*host{a, b} {
		if err := h.pub.Report(context.Background(), testReport(h.id, c)); err != nil {
			t.Fatal(err)
		}
	}
	races := 0
	s.before = func(r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-upload-pack") && races < 2 {
			races++
			if err := b.pub.Report(context.Background(), testReport("web-2", c)); err != nil {
				t.Error(err)
			}
		}
	}
	res := collect(t, a.col, "")
	if races == 0 || res.Skipped > 0 || len(res.Roll.Hosts) != 2 || res.Roll.Hosts[1].Sequence < 2 {
		t.Errorf("%d races, %+v", races, res)
	}
}

// A ref that never holds still costs its own row this round, and no other.
func TestCollectSkipsRestlessRef(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2", "web-3")
	hosts := map[string]*host{}
	for _, id := range []string{"web-1", "web-2", "web-3"} {
		hosts[id] = newHost(t, s, c, id, all)
		if err := hosts[id].pub.Report(context.Background(), testReport(id, c)); err != nil {
			t.Fatal(err)
		}
	}
	s.before = func(r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
			if err := hosts["web-2"].pub.Report(context.Background(), testReport("web-2", c)); err != nil {
				t.Error(err)
			}
		}
	}
	res := collect(t, hosts["web-1"].col, "")
	if res.Skipped != 1 || len(res.Roll.Hosts) != 2 {
		t.Errorf("skipped %d, %d hosts", res.Skipped, len(res.Roll.Hosts))
	}
	s.before = nil
	c.advance(2 * time.Minute)
	if res = collect(t, hosts["web-1"].col, ""); len(res.Roll.Hosts) != 3 {
		t.Errorf("%d hosts", len(res.Roll.Hosts))
	}
}

func TestRemovedHostsLeave(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	a, b := newHost(t, s, c, "web-1", all), newHost(t, s, c, "web-2", all)
	for _, h := range []*host{a, b} {
		if err := h.pub.Report(context.Background(), testReport(h.id, c)); err != nil {
			t.Fatal(err)
		}
	}
	collect(t, a.col, "")
	c.advance(2 * time.Hour)
	if err := a.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	if res := collect(t, a.col, ""); res.Roll.Counts.Lost != 1 {
		t.Errorf("%+v", res.Roll.Counts)
	}
	c.advance(84 * time.Hour) // one long pause would be taken for a leap of the collector's clock
	collect(t, a.col, "")
	c.advance(84 * time.Hour)
	if err := a.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	if res := collect(t, a.col, ""); res.Roll.Counts.Hosts != 1 {
		t.Errorf("%+v", res.Roll.Hosts)
	}
	if refs := runGit(t, s.dir, "for-each-ref", "refs/muster"); strings.Contains(refs, "web-2") {
		t.Errorf("its ref is still there:\n%s", refs)
	}
	if files := runGit(t, s.dir, "ls-tree", "-r", "--name-only", "status"); strings.Contains(files, "web-2") {
		t.Errorf("its files are still there:\n%s", files)
	}
	// It comes back: sequence and all.
	r := testReport("web-2", c)
	if err := b.pub.Report(context.Background(), r); err != nil || r.Sequence != 2 {
		t.Fatalf("sequence %d, %v", r.Sequence, err)
	}
	c.advance(2 * time.Minute)
	if res := collect(t, a.col, ""); res.Roll.Counts.Hosts != 2 || res.Roll.Counts.Lost != 0 {
		t.Errorf("%+v", res.Roll)
	}
}

// The branch starts anew on a schedule, and the roll names the tip that was.
func TestReroot(t *testing.T) {
	t.Parallel()
	for _, denied := range []bool{false, true} {
		t.Run(fmt.Sprintf("denied-%v", denied), func(t *testing.T) {
			t.Parallel()
			s, c := newServer(t), newClock()
			if denied {
				runGit(t, s.dir, "config", "receive.denyNonFastForwards", "true")
			}
			all := enrol(t, "web-1")
			h := newHost(t, s, c, "web-1", all)
			tips := []string{}
			for range 12 {
				if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
					t.Fatal(err)
				}
				collect(t, h.col, "")
				tips = append(tips, strings.TrimSpace(runGit(t, s.dir, "rev-parse", "status")))
				c.advance(3 * 24 * time.Hour)
			}
			roll, _ := readRoll(t, s, fleet.Collectors{Hosts: all}, c)
			count := strings.TrimSpace(runGit(t, s.dir, "rev-list", "--count", "status"))
			switch {
			case denied && (count != "12" || roll.History.PreviousTip != ""):
				t.Errorf("%s commits, history %+v", count, roll.History)
			case !denied && (count != "1" || roll.History.PreviousTip != tips[10]):
				t.Errorf("%s commits, history %+v, tips %v", count, roll.History, tips)
			}
		})
	}
}

// Somebody writes over the status branch: the next fold believes nothing of it that hosts did not sign.
func TestForgedStatus(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, h.col, "")
	pushRef(t, s, "refs/heads/status", map[string]string{
		"roll.json":     `{"schema":"muster.dev/roll/v1","time":"2126-01-01T00:00:00Z"}`,
		"roll.json.sig": "x",
		"hosts/" + fleet.Shard("web-9") + "/web-9.json": "{}", "hosts/" + fleet.Shard("web-9") + "/web-9.json.sig": "",
		"index.html": "<script>",
	})
	res := collect(t, h.col, "")
	if res.PreviousRefused == "" || len(res.Roll.Hosts) != 1 || len(res.Roll.Rejected) != 0 {
		t.Errorf("%+v", res)
	}
	if files := runGit(t, s.dir, "ls-tree", "-r", "--name-only", "status"); strings.Contains(files, "web-9") || strings.Contains(files, "index") {
		t.Errorf("what was forged stays:\n%s", files)
	}
}

// Something on the branch that is no status at all does not stop the fold.
func TestUnusableStatus(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	ref := string(h.pub.cfg.Remote.HostRef("web-1"))
	for _, path := range []string{"roll.json", "hosts"} {
		pushRef(t, s, "refs/heads/status", map[string]string{path + "/x": "a directory or a file, as it should not be"})
		if res := collect(t, h.col, ""); len(res.Roll.Hosts) != 1 {
			t.Errorf("%s: %+v", path, res)
		}
		c.advance(2 * time.Minute)
	}
	// Git itself lets a branch point to commits only, unless somebody works on the files.
	tree := strings.TrimSpace(runGit(t, s.dir, "rev-parse", ref+"^{tree}"))
	if err := os.WriteFile(filepath.Join(s.dir, "refs", "heads", "status"), []byte(tree+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if res := collect(t, h.col, ""); res.PreviousRefused == "" || len(res.Roll.Hosts) != 1 {
		t.Errorf("%+v", res)
	}
	if n := strings.TrimSpace(runGit(t, s.dir, "rev-list", "--count", "status")); n != "1" {
		t.Errorf("%s commits", n)
	}
}

// On a forge that takes branches only.
func TestPrefixHeads(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	runGit(t, s.dir, "config", "receive.hideRefs", "refs/muster")
	h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
	h.pub.cfg.Remote.Prefix, h.col.cfg.Remote.Prefix = PrefixHeads, PrefixHeads
	if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	collect(t, h.col, "")
	if refs := runGit(t, s.dir, "for-each-ref", "--format=%(refname)"); !strings.Contains(refs, "refs/heads/muster-hosts/") {
		t.Error(refs)
	}
}

// The local transport, which runs git itself.
func TestFileTransport(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	s.url = "file://" + s.dir
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	for range 2 {
		if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
			t.Fatal(err)
		}
		collect(t, h.col, "")
		c.advance(2 * time.Minute)
	}
	if roll, _ := readRoll(t, s, fleet.Collectors{Hosts: all}, c); roll.Hosts[0].Sequence != 2 {
		t.Errorf("%+v", roll.Hosts)
	}
}

func TestTooManyHostsForAuto(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	var h *host
	for _, id := range []string{"web-1", "web-2"} {
		h = newHost(t, s, c, id, all)
		if err := h.pub.Report(context.Background(), testReport(id, c)); err != nil {
			t.Fatal(err)
		}
	}
	h.col.cfg.MaxHosts = 1
	collect(t, h.col, ReasonTooMany)
	empty := newHost(t, newServer(t), c, "web-1", all)
	collect(t, empty.col, ReasonNoReports)
}
