// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"time"

	jsoncanonicalizer "github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"github.com/muster-fleet/muster/enforce"
)

// MaxReport is the size limit of report.json in bytes.
const MaxReport = 64 << 10

// maxText bounds every free text of a report, so that one message cannot push the lists out.
const maxText = 1024

// maxExact is the largest integer that RFC 8785's numbers (IEEE doubles) carry exactly.
const maxExact = 1<<53 - 1

// Errors of reading a report. Reason names the kind in one word for rolls and metrics.
var (
	ErrReportSize      = errors.New("report is larger than 64 KiB")
	ErrReportMalformed = errors.New("report is not a valid document")
	ErrReportCanonical = errors.New("report is not in canonical form")
	ErrReportField     = errors.New("report has a value that is not allowed")
)

// Encode renders a report as RFC 8785 canonical JSON of at most MaxReport bytes. Lists that do not fit are
// cut at their end and Truncated says by how much. The same report gives the same bytes.
func Encode(r Report) ([]byte, error) {
	r = normalized(r)
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := canonical(r)
	if err != nil {
		return nil, err
	}
	if len(b) <= MaxReport {
		return b, nil
	}
	r = truncated(r)
	if b, err = canonical(r); err != nil {
		return nil, err
	}
	if len(b) > MaxReport {
		return nil, fmt.Errorf("%w even without its lists: %d bytes", ErrReportSize, len(b))
	}
	return b, nil
}

// Decode reads a report strictly: size, no unknown field, only allowed values, and byte for byte the
// canonical form (which also excludes duplicate keys, other spellings of keys, and invalid UTF-8).
func Decode(b []byte) (Report, error) {
	var r Report
	if len(b) > MaxReport {
		return r, fmt.Errorf("%w: %d bytes", ErrReportSize, len(b))
	}
	if err := strictJSON(b, &r); err != nil {
		return Report{}, fmt.Errorf("%w: %s", ErrReportMalformed, printable(err.Error(), 200))
	}
	if err := r.check(); err != nil {
		return Report{}, err
	}
	again, err := canonical(normalized(r))
	if err != nil {
		return Report{}, fmt.Errorf("%w: %s", ErrReportMalformed, printable(err.Error(), 200))
	}
	if !bytes.Equal(again, b) {
		return Report{}, ErrReportCanonical
	}
	return r, nil
}

// strictJSON decodes exactly one document without unknown fields.
func strictJSON(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the document")
	}
	return nil
}

func canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsoncanonicalizer.Transform(b)
}

// normalized gives lists instead of nulls, whole seconds in UTC, bounded texts and exact numbers.
func normalized(r Report) Report {
	if r.Schema == "" {
		r.Schema = ReportSchema
	}
	r.Time = wholeSecond(r.Time)
	r.LSMs = append([]string{}, r.LSMs...)
	r.Releases = append([]ReportRelease{}, r.Releases...)
	for i := range r.Releases {
		r.Releases[i].Signers = append([]string{}, r.Releases[i].Signers...)
	}
	r.Conditions = append([]Condition{}, r.Conditions...)
	for i := range r.Conditions {
		c := &r.Conditions[i]
		c.Since, c.Message, c.Error = wholeSecond(c.Since), clip(c.Message, maxText), clip(c.Error, maxText)
	}
	r.Subjects = append([]ReportSubject{}, r.Subjects...)
	r.Drift = append([]enforce.Drift{}, r.Drift...)
	for i := range r.Drift {
		d := &r.Drift[i]
		d.Since, d.Declared, d.Observed = wholeSecond(d.Since), clip(d.Declared, maxText), clip(d.Observed, maxText)
	}
	r.Gaps = append([]enforce.Gap{}, r.Gaps...)
	for i := range r.Gaps {
		r.Gaps[i].Detail = clip(r.Gaps[i].Detail, maxText)
	}
	r.Events = append([]EventCount{}, r.Events...)
	for i := range r.Events {
		r.Events[i].Count = min(r.Events[i].Count, maxExact)
	}
	r.Losses = maps.Clone(r.Losses)
	for k, v := range r.Losses {
		r.Losses[k] = min(v, maxExact)
	}
	r.Timings = maps.Clone(r.Timings)
	maps.DeleteFunc(r.Timings, func(_ string, v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	r.Inventory.Labels = maps.Clone(r.Inventory.Labels)
	if r.Inventory.Labels == nil {
		r.Inventory.Labels = map[string]string{}
	}
	r.Truncated = maps.Clone(r.Truncated)
	return r
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// Words that a report may contain where it is shown to people.
var (
	conditionPattern = regexp.MustCompile(`^[A-Z][A-Za-z]{1,31}$`)
	fleetPattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// modes are those of an agent.
var modes = []enforce.Mode{enforce.ModeEnforce, enforce.ModeAudit, enforce.ModeOff}

// states lists the seven, in the order in which a person should look at them.
var states = []HostState{
	StateStalled, StateDrifted, StateHeld, StateUnknown, StatePartial, StateAudited, StateEnforced,
}

// check refuses what no honest report holds; free texts are checked where they are shown.
func (r Report) check() error {
	switch {
	case r.Schema != ReportSchema:
		return fmt.Errorf("%w: schema %q, expected %q", ErrReportField, printable(r.Schema, 64), ReportSchema)
	case r.Fleet != "" && !fleetPattern.MatchString(r.Fleet):
		return fmt.Errorf("%w: fleet %q", ErrReportField, printable(r.Fleet, 64))
	case r.Sequence < 1 || r.Sequence > maxExact:
		return fmt.Errorf("%w: sequence %d", ErrReportField, r.Sequence)
	case !slices.Contains(states, r.State):
		return fmt.Errorf("%w: state %q", ErrReportField, printable(string(r.State), 64))
	case !slices.Contains(modes, r.Mode):
		return fmt.Errorf("%w: mode %q", ErrReportField, printable(string(r.Mode), 64))
	case r.Time.IsZero() || r.Time.Year() > 9999:
		return fmt.Errorf("%w: time", ErrReportField)
	}
	if err := r.checkLists(); err != nil {
		return err
	}
	return CheckHostID(r.Host)
}

func (r Report) checkLists() error {
	for _, c := range r.Conditions {
		if !conditionPattern.MatchString(c.Type) {
			return fmt.Errorf("%w: condition %q", ErrReportField, printable(c.Type, 64))
		}
	}
	for name, n := range r.Truncated {
		if n < 1 || n > maxExact {
			return fmt.Errorf("%w: truncated %q by %d", ErrReportField, printable(name, 64), n)
		}
	}
	return nil
}
