// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

var soaked = policies.ID{Kind: policies.KindContainer, Namespace: "ns", Name: "p"}

// audit is a line of an event file as the agent writes it.
func audit(at time.Time, host string, id policies.ID, version string, change ...func(*Record)) []byte {
	rule := enforce.Rule{Policy: id, Version: version, DryRun: true, Rule: policies.Rule{Action: policies.ActionBlock, Position: policies.Position{File: "p.yaml", Line: 9, Column: 3}}}
	ev := enforce.Event{
		Time: at, Subject: enforce.Host, Class: policies.ClassFile, Mode: enforce.ModeEnforce, Operation: "open", Resource: "/f", Source: "/bin/cat",
		DryRuns: []enforce.EventDryRun{{Rule: &rule}},
	}
	r := Translate(ev, Identity{Hostname: host})[0]
	for _, c := range change {
		c(&r)
	}
	return append(appendRecord(nil, &r), '\n')
}

func note(at time.Time, host string, id policies.ID, version, operation string) []byte {
	a := enforce.AuditedPolicy{Policy: id, Version: version, Mode: enforce.ModeEnforce}
	r := dryRunRecord(a, DryRunName(id, version), operation, at)
	r.HostName = host
	return append(appendRecord(nil, &r), '\n')
}

// TestSoak: what counts is this kind, namespace, name and version, since the label last changed, on each host by itself.
func TestSoak(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(minute int) time.Time { return day.Add(time.Duration(minute) * time.Minute) }
	other := soaked
	other.Kind = policies.KindHost
	elsewhere := soaked
	elsewhere.Namespace = "other"
	count := func(n uint64) func(*Record) { return func(r *Record) { r.Count = n } }
	posture := func(r *Record) { r.PolicyName, r.EventData.Rule = DefaultPosture, "" }
	whole := func(r *Record) { r.EventData.Mode = "audit" }
	old := func(r *Record) { r.EventData.DryRun = nil }
	for name, c := range map[string]struct {
		lines [][]byte
		want  string
	}{
		"nothing":                 {nil, "0 others 0"},
		"of another host's noise": {[][]byte{audit(at(1), "a", other, "v1")}, "0 others 0"},
		"one policy among its namesakes": {
			[][]byte{
				note(at(0), "a", soaked, "v1", dryRunBegins),
				audit(at(1), "a", soaked, "v1", count(5)), audit(at(1), "a", other, "v1"), audit(at(1), "a", elsewhere, "v1"),
			},
			"5 others 0; a since 12:00 until 12:01: 5; p.yaml:9:3 open /f /bin/cat 5",
		},
		"other versions, and agents that do not say": {
			[][]byte{
				audit(at(1), "a", soaked, "v0", count(7)), audit(at(1), "a", soaked, "v1", old),
				note(at(2), "a", soaked, "v0", dryRunEnds), note(at(2), "a", soaked, "v1", dryRunBegins), audit(at(3), "a", soaked, "v1"),
			},
			"1 others 8; a since 12:02 until 12:03: 1; p.yaml:9:3 open /f /bin/cat 1",
		},
		"the label has changed and changed back": {
			[][]byte{
				note(at(0), "a", soaked, "v1", dryRunBegins), audit(at(1), "a", soaked, "v1", count(9)),
				note(at(2), "a", soaked, "v1", dryRunEnds),
				note(at(3), "a", soaked, "v1", dryRunBegins), audit(at(4), "a", soaked, "v1"),
			},
			"1 others 0; a since 12:03 until 12:04: 1; p.yaml:9:3 open /f /bin/cat 1",
		},
		"an agent that started again": {
			[][]byte{
				note(at(0), "a", soaked, "v1", dryRunBegins), audit(at(1), "a", soaked, "v1"),
				note(at(2), "a", soaked, "v1", dryRunBegins), audit(at(4), "a", soaked, "v1"),
			},
			"2 others 0; a since 12:00 until 12:04: 2; p.yaml:9:3 open /f /bin/cat 2",
		},
		"enforced by now": {
			[][]byte{note(at(0), "a", soaked, "v1", dryRunBegins), note(at(5), "a", soaked, "v1", dryRunEnds)},
			"0 others 0; a since 12:00 until 12:05: 0 ended",
		},
		"several hosts, of one the beginning is lost": {
			[][]byte{
				note(at(0), "a", soaked, "v1", dryRunBegins), audit(at(1), "b", soaked, "v1", count(2)), audit(at(2), "a", soaked, "v1"),
				audit(at(3), "c", other, "v1"), note(at(4), "d", soaked, "v1", dryRunGoesOn),
			},
			"3 others 0; a since 12:00 until 12:02: 1; b since ? until 12:01: 2; d since 12:04 until 12:04: 0; p.yaml:9:3 open /f /bin/cat 3",
		},
		"its allow-list on a host in audit": {
			[][]byte{audit(at(1), "a", soaked, "v1", posture, whole)},
			"1 others 0; a since ? until 12:01: 1 whole; DefaultPosture open /f /bin/cat 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewSoak(soaked, "v1")
			if err := s.Read(bytes.NewReader(bytes.Join(c.lines, nil))); err != nil {
				t.Fatal(err)
			}
			s.Sort()
			if got := inWords(s); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func inWords(s *Soak) string {
	parts := []string{fmt.Sprintf("%d others %d", s.Operations, s.Others)}
	for _, h := range s.Hosts {
		begun := "?"
		if !h.Begun.IsZero() {
			begun = h.Begun.Format("15:04")
		}
		text := fmt.Sprintf("%s since %s until %s: %d", h.Host, begun, h.Last.Format("15:04"), h.Operations)
		if h.Ended {
			text += " ended"
		}
		if h.Whole {
			text += " whole"
		}
		parts = append(parts, text)
	}
	for _, r := range s.Rows {
		parts = append(parts, fmt.Sprintf("%s %s %s %s %d", r.Rule, r.Operation, r.Resource, r.Source, r.Count))
	}
	return strings.Join(parts, "; ")
}

// TestAudited: the file says when a policy begins to soak, that it still does, and when it no longer does.
func TestAudited(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	p := NewPipe(&file, 64, slog.New(slog.DiscardHandler))
	p.SetIdentity(Identity{Hostname: "a"})
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	v1 := []enforce.AuditedPolicy{{Policy: soaked, Version: "v1", Mode: enforce.ModeEnforce}}
	v2 := []enforce.AuditedPolicy{{Policy: soaked, Version: "v2", Mode: enforce.ModeAudit}}
	for _, step := range []struct {
		list  []enforce.AuditedPolicy
		after time.Duration
	}{{v1, 0}, {v1, time.Minute}, {v1, 25 * time.Hour}, {v2, 26 * time.Hour}, {nil, 27 * time.Hour}} {
		p.Audited(step.list, day.Add(step.after))
	}
	p.drain()
	var got []string
	for line := range strings.Lines(file.String()) {
		fields := strings.Split(line, `"EventData":`)
		got = append(got, fields[1][:strings.Index(fields[1], "}")])
		if !strings.Contains(line, `"HostName":"a"`) || !strings.Contains(line, `"Type":"SystemEvent"`) {
			t.Errorf("line %s", line)
		}
	}
	var told []string
	for _, line := range got {
		for _, word := range []string{`"begin"`, `"go on"`, `"end"`} {
			if strings.Contains(line, word) {
				told = append(told, strings.Trim(word, `"`)+line[strings.Index(line, "@"):strings.Index(line, "@")+3])
			}
		}
	}
	if fmt.Sprint(told) != "[begin@v1 go on@v1 begin@v2 end@v1 end@v2]" {
		t.Errorf("told %v of\n%s", told, file.String())
	}
	if len(p.Counts()) != 0 {
		t.Errorf("counted as events: %v", p.Counts())
	}
}
