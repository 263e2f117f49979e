// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/quick"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// TestEncodingIsTheLibrarys compares random records with what json.Marshal makes of them.
func TestEncodingIsTheLibrarys(t *testing.T) {
	t.Parallel()
	var buffer []byte
	same := func(r Record) bool {
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		buffer = appendRecord(buffer[:0], &r)
		if !bytes.Equal(buffer, want) {
			t.Logf("got  %s\nwant %s", buffer, want)
			return false
		}
		return true
	}
	for _, r := range []Record{{}, {ATags: []string{}}, {ATags: []string{"a", "<b>"}, Resource: "/a\x7f\"\\\n\xff", TTY: "é"}} {
		if !same(r) {
			t.Error("differs")
		}
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
}

// TestWeights counts an event that tells of many as many, wherever it ends.
func TestWeights(t *testing.T) {
	t.Parallel()
	many := enforce.Event{Class: policies.ClassFile, Rule: rule("p", policies.ActionBlock), Verdict: enforce.Deny, Count: 1000}
	sink := &gate{open: make(chan struct{}), fail: true}
	close(sink.open)
	p := NewPipe(sink, 8, slog.New(slog.DiscardHandler))
	go p.Run(t.Context())
	p.Push(many)
	if err := p.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := NewPipe(nil, 0, slog.New(slog.DiscardHandler))
	full.Push(many)
	if w, q := p.Losses()[LossWrite], full.Losses()[LossQueue]; w != 1000 || q != 1000 {
		t.Errorf("lost %d in writing, %d in the queue", w, q)
	}
	for _, c := range [][]uint64{{p.Counts()[0].Count}, {full.Counts()[0].Count}} {
		if c[0] != 1000 {
			t.Errorf("counted %d", c[0])
		}
	}
}

// torn is a disk that takes only so much of a write.
type torn struct{ room int }

func (w *torn) Write(b []byte) (int, error) {
	if len(b) > w.room {
		return w.room, io.ErrShortWrite
	}
	return len(b), nil
}

// TestTornWrite counts as lost what of a write was not taken as a whole line.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	r := Record{Count: 3}
	line := len(appendRecord(nil, &r)) + 1
	p := NewPipe(&torn{room: 2*line + 10}, 8, slog.New(slog.DiscardHandler))
	for range 4 {
		p.lines = append(appendRecord(p.lines, &r), '\n')
		p.weights = append(p.weights, r.Count)
	}
	p.write()
	if n := p.Losses()[LossWrite]; n != 6 {
		t.Errorf("%d lost, want the 6 of two lines", n)
	}
}

func BenchmarkPipe(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "events.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	p := NewPipe(file, 1024, slog.New(slog.DiscardHandler))
	p.SetIdentity(identity)
	go p.Run(b.Context())
	ev := enforce.Event{
		Time: time.Unix(1700000000, 5000), Subject: enforce.Host, Class: policies.ClassFile, Hook: "FILE_OPEN", Operation: "open",
		Rule: rule("p", policies.ActionBlock), Verdict: enforce.Deny, Resource: "/etc/shadow", Source: "/usr/bin/cat",
		Parent: "/usr/bin/bash", PID: 4711, PPID: 4000, UID: 1000, Comm: "cat", TTY: "pts0", Count: 1,
	}
	b.ReportAllocs()
	for b.Loop() {
		p.queue <- item{event: ev}
	}
	if err := p.Barrier(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
