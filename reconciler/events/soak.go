// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// maxSoakRows bounds what is told apart; the rest is one row without a resource for each rule.
const maxSoakRows = 10_000

// Soak is what one version of a policy in audit would have denied, by rule, operation, resource and source, and what is
// known of how long it was watched.
type Soak struct {
	Policy     string     `json:"policy"`
	Kind       string     `json:"kind"`
	Namespace  string     `json:"namespace,omitempty"`
	Version    string     `json:"version"`
	Operations uint64     `json:"operations"`
	Since      time.Time  `json:"since,omitzero"` // of the first and the last of them
	Until      time.Time  `json:"until,omitzero"`
	Hosts      []SoakHost `json:"hosts"`
	// Others are operations of other versions of the policy, or of agents that did not say which. They are not counted.
	Others uint64    `json:"others,omitempty"`
	Rows   []SoakRow `json:"rows"`

	name  string // as events have it
	hosts map[string]*soakedHost
}

// SoakHost is one host whose events tell of the policy.
type SoakHost struct {
	Host string `json:"host"`
	// Begun is when the host told that the version is in audit, if that is in the events; Last is its last event of any
	// kind. Between the two it has listened, but for what its losses say.
	Begun time.Time `json:"begun,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// Ended: the version is no longer in audit there.
	Ended bool `json:"ended,omitempty"`
	// Whole: the host enforces nothing, and its events tell what all policies together would have denied.
	Whole      bool   `json:"whole,omitempty"`
	Operations uint64 `json:"operations"`
}

// SoakRow is one line of a soak.
type SoakRow struct {
	Rule      string    `json:"rule"` // FILE:LINE:COLUMN in the release, or DefaultPosture
	Operation string    `json:"operation"`
	Resource  string    `json:"resource"` // empty: several that were not told apart
	Source    string    `json:"source"`
	Count     uint64    `json:"count"`
	Last      time.Time `json:"last"`
}

type soakKey struct{ rule, operation, resource, source string }

// soakedHost is what is known of one host; told is false when its events do not speak of the policy.
type soakedHost struct {
	SoakHost

	told  bool
	since time.Time
	until time.Time
	rows  map[soakKey]*SoakRow
}

// NewSoak begins an empty one.
func NewSoak(id policies.ID, version string) *Soak {
	return &Soak{
		Policy: id.Name, Kind: string(id.Kind), Namespace: id.Namespace, Version: version,
		name: DryRunName(id, version), hosts: map[string]*soakedHost{},
	}
}

// Read adds an event file. The lines of a host are read in the order in which they were written.
func (s *Soak) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		var record Record
		if json.Unmarshal(lines.Bytes(), &record) == nil { // half a line is the end of a full disk
			s.add(&record)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("event file: %w", err)
	}
	return nil
}

func (s *Soak) add(r *Record) {
	h := s.hosts[r.HostName]
	if h == nil {
		h = &soakedHost{SoakHost: SoakHost{Host: r.HostName}, rows: map[soakKey]*SoakRow{}}
		s.hosts[r.HostName] = h
	}
	at := moment(r.UpdatedTime)
	h.Last = later(h.Last, at)
	switch named := slices.Contains(r.EventData.DryRun, s.name); {
	case named && r.Operation == dryRunOperation:
		h.told, h.Whole = true, r.EventData.Mode == string(enforce.ModeAudit)
		h.note(r.EventData.Operation, at)
	case named && r.Action == actionAuditBlock:
		h.told, h.Whole = true, r.EventData.Mode == string(enforce.ModeAudit)
		h.add(r, at)
	case r.Action == actionAuditBlock && s.isOther(r):
		s.Others += max(1, r.Count)
	}
}

// isOther says whether a record is of the policy, but not of this version.
func (s *Soak) isOther(r *Record) bool {
	name, _, _ := strings.Cut(s.name, "@")
	if len(r.EventData.DryRun) == 0 {
		return r.PolicyName == s.Policy && r.NamespaceName == s.Namespace && r.EventData.Mode == ""
	}
	return slices.ContainsFunc(r.EventData.DryRun, func(other string) bool { return strings.HasPrefix(other, name+"@") })
}

// note begins or ends the soak: what was counted before a new beginning is no part of it.
func (h *soakedHost) note(operation string, at time.Time) {
	switch {
	case operation == dryRunEnds:
		h.Ended = true
	case h.Ended:
		h.Begun, h.Ended, h.Operations = at, false, 0
		h.since, h.until = time.Time{}, time.Time{}
		clear(h.rows)
	case h.Begun.IsZero():
		h.Begun = at
	}
}

func (h *soakedHost) add(r *Record, last time.Time) {
	n := max(1, r.Count)
	since := last
	if r.EventData.Since != "" {
		since = moment(r.EventData.Since)
	}
	if h.since.IsZero() || since.Before(h.since) {
		h.since = since
	}
	h.until = later(h.until, last)
	h.Operations += n
	rule := r.EventData.Rule
	if r.PolicyName == DefaultPosture {
		rule = DefaultPosture
	}
	addRow(h.rows, SoakRow{
		Rule: rule, Operation: r.EventData.Operation, Resource: r.Resource,
		Source: cmp.Or(r.EventData.Script, r.Source), Count: n, Last: last,
	})
}

// addRow adds what a row counts to those of its key.
func addRow(rows map[soakKey]*SoakRow, add SoakRow) {
	key := soakKey{add.Rule, add.Operation, add.Resource, add.Source}
	if rows[key] == nil && len(rows) >= maxSoakRows {
		key = soakKey{rule: key.rule, operation: key.operation}
	}
	row := rows[key]
	if row == nil {
		row = &SoakRow{Rule: key.rule, Operation: key.operation, Resource: key.resource, Source: key.source}
		rows[key] = row
	}
	row.Count += add.Count
	row.Last = later(row.Last, add.Last)
}

func moment(text string) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, text) // what is no time is none
	return at
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Sort sums up: Hosts by name, Rows by rule and the most frequent first.
func (s *Soak) Sort() {
	rows := map[soakKey]*SoakRow{}
	s.Hosts, s.Rows = []SoakHost{}, []SoakRow{}
	for _, h := range s.hosts {
		if !h.told {
			continue
		}
		s.Hosts = append(s.Hosts, h.SoakHost)
		s.Operations += h.Operations
		if s.Since.IsZero() || !h.since.IsZero() && h.since.Before(s.Since) {
			s.Since = h.since
		}
		s.Until = later(s.Until, h.until)
		for _, row := range h.rows {
			addRow(rows, *row)
		}
	}
	for _, row := range rows {
		s.Rows = append(s.Rows, *row)
	}
	slices.SortFunc(s.Hosts, func(a, b SoakHost) int { return cmp.Compare(a.Host, b.Host) })
	slices.SortFunc(s.Rows, func(a, b SoakRow) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Operation, b.Operation))
	})
}

// Whole says whether the policy was soaked by hosts that enforce nothing.
func (s *Soak) Whole() bool {
	return slices.ContainsFunc(s.Hosts, func(h SoakHost) bool { return h.Whole })
}
