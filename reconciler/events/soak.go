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
	"time"
)

// maxSoakRows bounds what is told apart; the rest is one row without a resource for each rule.
const maxSoakRows = 10_000

// Soak is what a policy in audit mode would have denied, by rule, operation, resource and source.
type Soak struct {
	Policy     string    `json:"policy"`
	Operations uint64    `json:"operations"`
	Since      time.Time `json:"since,omitzero"` // of the first and the last of them
	Until      time.Time `json:"until,omitzero"`
	Rows       []SoakRow `json:"rows"`

	rows map[soakKey]*SoakRow
}

// SoakRow is one line of a soak.
type SoakRow struct {
	Rule      string    `json:"rule"` // FILE:LINE:COLUMN in the release
	Operation string    `json:"operation"`
	Resource  string    `json:"resource"` // empty: several that were not told apart
	Source    string    `json:"source"`
	Count     uint64    `json:"count"`
	Last      time.Time `json:"last"`
}

type soakKey struct{ rule, operation, resource, source string }

// NewSoak begins an empty one.
func NewSoak(policy string) *Soak {
	return &Soak{Policy: policy, rows: map[soakKey]*SoakRow{}}
}

// Read adds an event file.
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
	if r.PolicyName != s.Policy || r.Action != actionAuditBlock {
		return
	}
	n := max(1, r.Count)
	last := moment(r.UpdatedTime)
	since := last
	if r.EventData.Since != "" {
		since = moment(r.EventData.Since)
	}
	if s.Since.IsZero() || since.Before(s.Since) {
		s.Since = since
	}
	s.Until = later(s.Until, last)
	s.Operations += n
	key := soakKey{r.EventData.Rule, r.EventData.Operation, r.Resource, cmp.Or(r.EventData.Script, r.Source)}
	if s.rows[key] == nil && len(s.rows) >= maxSoakRows {
		key = soakKey{rule: key.rule, operation: key.operation}
	}
	row := s.rows[key]
	if row == nil {
		row = &SoakRow{Rule: key.rule, Operation: key.operation, Resource: key.resource, Source: key.source}
		s.rows[key] = row
	}
	row.Count += n
	row.Last = later(row.Last, last)
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

// Sort fills Rows: by rule, and the most frequent first.
func (s *Soak) Sort() {
	s.Rows = []SoakRow{}
	for _, row := range s.rows {
		s.Rows = append(s.Rows, *row)
	}
	slices.SortFunc(s.Rows, func(a, b SoakRow) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Operation, b.Operation))
	})
}
