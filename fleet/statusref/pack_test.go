// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"github.com/muster-fleet/muster/fleet"
)

// Folding ten thousand refs of which a tenth changed (PERFORMANCE: 2 s, 150 MB; growth at most twice the
// changed bytes).
func BenchmarkCollectTenThousand(b *testing.B) {
	const n = 10000
	s, c := newServer(b), newClock()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("host-%05d.example.org", i)
	}
	all := enrol(b, ids...)
	h := newHost(b, s, c, ids[0], all)
	h.col.cfg.MaxHosts = 0
	pushMany(b, s, c, ids, 1)
	collect(b, h.col, "")
	runGit(b, s.dir, "repack", "-qad")
	for i := range b.N {
		b.StopTimer()
		c.advance(2 * time.Minute)
		changed := pushMany(b, s, c, ids[:n/10], int64(i+2))
		runGit(b, s.dir, "repack", "-qd")
		before := packBytes(b, s)
		b.StartTimer()
		collect(b, h.col, "")
		b.StopTimer()
		runGit(b, s.dir, "repack", "-qd")
		b.ReportMetric(float64(packBytes(b, s)-before)/float64(changed), "growth/changed")
		b.StartTimer()
	}
}

// packBytes is what the repository's packs weigh.
func packBytes(t testing.TB, s *server) int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "objects", "pack", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// pushMany writes the refs of many hosts in one push and answers the bytes of their reports.
func pushMany(t testing.TB, s *server, c *clock, ids []string, sequence int64) int64 {
	t.Helper()
	conn, err := Remote{URL: s.url}.openPush(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	b := newBuilder()
	var cmds []*packp.Command
	var total int64
	for _, id := range ids {
		r := testReport(id, c)
		r.Sequence = sequence
		content, err := fleet.Encode(*r)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := fleet.Sign(testKey(t, id), fleet.NamespaceReport, content)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(len(content) + len(sig))
		cmds = append(cmds, command(t, b, conn, id, content, sig))
	}
	answers, err := conn.send(context.Background(), cmds, b.store, b.made)
	if err != nil {
		t.Fatal(err)
	}
	for ref, err := range answers {
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
	}
	return total
}

func command(t testing.TB, b *builder, conn *pusher, id string, content, sig []byte) *packp.Command {
	t.Helper()
	must := func(h plumbing.Hash, err error) plumbing.Hash {
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	tree := must(b.tree([]object.TreeEntry{file(reportFile, must(b.blob(content))), file(signatureFile, must(b.blob(sig)))}))
	commit := must(b.commit(tree, id, "x", time.Unix(0, 0)))
	ref := Remote{}.HostRef(id)
	return &packp.Command{Name: ref, Old: conn.advert.refs[ref], New: commit}
}

// A pack that claims more than it may is refused before anything is built from it.
func TestInspectPack(t *testing.T) {
	t.Parallel()
	b := newBuilder()
	if _, err := b.blob(bytes.Repeat([]byte("a"), 5000)); err != nil {
		t.Fatal(err)
	}
	pack := encodePack(t, b)
	lim := limits{pack: 1 << 20, object: 5000, total: 5000, count: 1}
	if err := inspectPack(pack, lim); err != nil {
		t.Error(err)
	}
	for name, lim := range map[string]limits{
		"object": {object: 4999, total: 5000, count: 1},
		"total":  {object: 5000, total: 4999, count: 1},
		"count":  {object: 5000, total: 5000},
	} {
		if err := inspectPack(pack, lim); err == nil || !strings.Contains(err.Error(), "limit") && !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for cut := range len(pack) - 20 {
		if err := inspectPack(pack[:cut], lim); err == nil {
			t.Errorf("a pack cut at %d is fine", cut)
		}
	}
}

func encodePack(t *testing.T, b *builder) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := packfile.NewEncoder(&out, b.store, false).Encode(b.made, 0); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
