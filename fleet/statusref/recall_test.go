// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

// TestOwnReport: a host finds what it said itself, on its disk and at the remote, and takes nobody else's word.
func TestOwnReport(t *testing.T) {
	t.Parallel()
	ctx, s, c := context.Background(), newServer(t), newClock()
	all := enrol(t, "web-1", "web-2")
	one, two := newHost(t, s, c, "web-1", all), newHost(t, s, c, "web-2", all)
	own := func(h *host, id string) *fleet.Report {
		t.Helper()
		r, err := OwnReport(ctx, h.pub.cfg.Remote, id, h.pub.cfg.Key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	spooled := func(h *host, key int) *fleet.Report {
		t.Helper()
		r, err := SpooledReport(h.pub.cfg.Dir, []*host{one, two}[key].pub.cfg.Key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if own(one, "web-1") != nil || spooled(one, 0) != nil {
		t.Fatal("a report before there was one")
	}
	if err := one.pub.Report(ctx, testReport("web-1", c)); err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]*fleet.Report{"remote": own(one, "web-1"), "spool": spooled(one, 0)} {
		if r == nil || r.Host != "web-1" || r.Sequence != 1 || len(r.Releases) != 1 {
			t.Fatalf("%s: %+v", what, r)
		}
	}
	if own(two, "web-1") != nil || own(one, "web-2") != nil {
		t.Fatal("another host's report is taken for one's own")
	}
	if _, err := SpooledReport(one.pub.cfg.Dir, two.pub.cfg.Key.PublicKey()); err == nil {
		t.Fatal("another key's report in the spool")
	}
	// Somebody else writes this host's ref.
	runGit(t, s.dir, "update-ref", string(one.pub.cfg.Remote.HostRef("web-2")), strings.TrimSpace(runGit(t, s.dir, "rev-parse", string(one.pub.cfg.Remote.HostRef("web-1")))))
	if own(two, "web-2") != nil || own(one, "web-2") != nil {
		t.Fatal("a report about another host")
	}
	if err := os.WriteFile(filepath.Join(one.pub.cfg.Dir, spoolName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SpooledReport(one.pub.cfg.Dir, one.pub.cfg.Key.PublicKey()); err == nil {
		t.Fatal("a torn spool is not said")
	}
	one.pub.cfg.Remote.URL = filepath.Join(t.TempDir(), "gone")
	if _, err := OwnReport(ctx, one.pub.cfg.Remote, "web-1", one.pub.cfg.Key.PublicKey()); err == nil {
		t.Fatal("a remote that is gone is not said")
	}
}
