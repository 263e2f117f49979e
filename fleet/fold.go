// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/bundles/sshsig"
	"github.com/muster-fleet/muster/enforce"
)

// SignedReport is a report as it was found, believed by nobody yet.
type SignedReport struct {
	// Ref is the host id that the ref or file name claims: a hint, compared with what is signed.
	Ref       string
	Report    []byte
	Signature []byte
	// Kept is true for what the status branch holds already.
	Kept bool
}

// FoldInput is everything that a fold depends on.
type FoldInput struct {
	Fleet     string
	Collector string
	Reports   []SignedReport
	Hosts     *AllowedSigners
	// Previous is the last roll, believed for times only; nil when there is none that verifies.
	Previous *Roll
	Now      time.Time
	// LostAfter and RemoveAfter count from the moment a host's last report was first seen.
	LostAfter   time.Duration
	RemoveAfter time.Duration
}

// Folded is a new roll and which of the given reports it rests on.
type Folded struct {
	Roll Roll
	// Accepted holds, by host, the index into FoldInput.Reports, enrolled hosts only.
	Accepted map[string]int
	// Removed hosts' files and refs are to be deleted.
	Removed []string
}

// Limits of what strangers can put into a roll.
const (
	maxUnenrolled = 1000
	maxRejected   = 1000
	clockLeeway   = 5 * time.Minute
	alarmFor      = 24 * time.Hour
	maxAlarms     = 8
)

// ErrMisplaced says that a valid report lies under another host's name.
var ErrMisplaced = errors.New("report lies under another host's name")

// ErrFleet says that a report is for another fleet.
var ErrFleet = errors.New("report is for another fleet")

// Checked is a report whose signature matches; Enrolled says whether its key may speak for its host.
type Checked struct {
	Report   Report
	Digest   string // SHA-256 of the bytes
	Key      ssh.PublicKey
	Enrolled bool
}

// CheckReport verifies one report: form, place, fleet, signature, enrolment.
func CheckReport(s SignedReport, fleetName string, hosts *AllowedSigners, now time.Time) (Checked, error) {
	if len(s.Report) > MaxReport {
		return Checked{}, fmt.Errorf("%w: %d bytes", ErrReportSize, len(s.Report))
	}
	key, err := Verify(s.Signature, NamespaceReport, s.Report)
	if err != nil {
		return Checked{}, err
	}
	r, err := Decode(s.Report)
	if err != nil {
		return Checked{}, err
	}
	if s.Ref != "" && s.Ref != r.Host {
		return Checked{}, fmt.Errorf("%w: %s under %s", ErrMisplaced, r.Host, printable(s.Ref, maxHostID))
	}
	if fleetName != "" && r.Fleet != fleetName {
		return Checked{}, fmt.Errorf("%w: %q", ErrFleet, printable(r.Fleet, 64))
	}
	sum := sha256.Sum256(s.Report)
	return Checked{
		Report:   r,
		Digest:   hex.EncodeToString(sum[:]),
		Key:      key,
		Enrolled: hosts.Check(r.Host, key, NamespaceReport, now) == nil,
	}, nil
}

// Reason is the one word for an error of CheckReport, for rolls and metrics.
func Reason(err error) string {
	for _, r := range []struct {
		kind error
		word string
	}{
		{ErrReportSize, "too-large"},
		{ErrReportMalformed, "malformed"},
		{ErrReportCanonical, "not-canonical"},
		{ErrReportField, "bad-value"},
		{ErrHostID, "bad-host-id"},
		{ErrMisplaced, "misplaced"},
		{ErrFleet, "wrong-fleet"},
		{ErrSignatureNamespace, "wrong-namespace"},
		{ErrSignatureAlgorithm, "bad-algorithm"},
		{ErrSignatureInvalid, "bad-signature"},
		{ErrSignatureMalformed, "no-signature"},
		{ErrNotEnrolled, "not-enrolled"},
	} {
		if errors.Is(err, r.kind) {
			return r.word
		}
	}
	return "unreadable"
}

// candidate is a checked report with its place in the input.
type candidate struct {
	Checked
	index int
	kept  bool
}

// Fold makes the roll. It is pure: the same input gives the same roll, whoever computes it. For every host the
// highest validly signed sequence counts; an older one shown beside it is Replayed, an equal one with other
// content is Cloned, and what is kept already stays.
func Fold(in FoldInput) Folded {
	f := &folder{in: in, byHost: map[string][]candidate{}, strangers: map[string]candidate{}}
	f.index(in.Previous)
	f.check()
	f.roll = Roll{
		Schema: RollSchema, Fleet: in.Fleet, Collector: in.Collector, Time: wholeSecond(in.Now),
		Counts: Counts{States: map[HostState]int{}},
		Hosts:  []RollRow{}, Unenrolled: []RollRow{}, Rejected: []Rejected{},
	}
	f.roll.Leapt = f.leapt()
	out := Folded{Accepted: map[string]int{}}
	for _, host := range sortedKeys(f.byHost) {
		winner, row := f.fold(f.byHost[host])
		if f.gone(row) {
			out.Removed = append(out.Removed, host)
			f.roll.Removed = append(f.roll.Removed, f.tombstone(row))
			continue
		}
		out.Accepted[host] = winner.index
		f.roll.Hosts = append(f.roll.Hosts, row)
	}
	f.foldStrangers()
	f.foldRejected()
	f.count()
	out.Roll = f.roll
	return out
}

type folder struct {
	in        FoldInput
	roll      Roll
	byHost    map[string][]candidate
	strangers map[string]candidate // by host and key
	rejected  []Rejected
	previous  map[string]RollRow
	removed   map[string]Removed
}

// index remembers the previous roll by host (and key, for strangers).
func (f *folder) index(prev *Roll) {
	f.previous, f.removed = map[string]RollRow{}, map[string]Removed{}
	if prev == nil {
		return
	}
	for _, rows := range [][]RollRow{prev.Hosts, prev.Unenrolled} {
		for _, row := range rows {
			f.previous[row.Host+" "+row.Key] = row
		}
	}
	for _, r := range prev.Removed {
		f.removed[r.Host] = r
	}
}

// check verifies every report, in parallel, and sorts the outcome into the three kinds in input order.
func (f *folder) check() {
	checked := make([]Checked, len(f.in.Reports))
	errs := make([]error, len(f.in.Reports))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	const chunk = 64
	for from := 0; from < len(f.in.Reports); from += chunk {
		g.Go(func() error {
			for i := from; i < min(from+chunk, len(f.in.Reports)); i++ {
				checked[i], errs[i] = CheckReport(f.in.Reports[i], f.in.Fleet, f.in.Hosts, f.in.Now)
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines answer nil only
	for i, s := range f.in.Reports {
		c := candidate{Checked: checked[i], index: i, kept: s.Kept}
		switch {
		case errs[i] != nil && s.Kept:
			// What an earlier roll accepted and is not valid any more simply goes.
		case errs[i] != nil:
			f.rejected = append(f.rejected, Rejected{Ref: printable(s.Ref, maxHostID), Reason: Reason(errs[i])})
		case c.Enrolled:
			f.byHost[c.Report.Host] = append(f.byHost[c.Report.Host], c)
		case !s.Kept:
			f.strangers[c.Report.Host+" "+ssh.FingerprintSHA256(sshsig.PlainKey(c.Key))] = c
		}
	}
}

// fold chooses among the reports of one host.
func (f *folder) fold(list []candidate) (candidate, RollRow) {
	slices.SortStableFunc(list, func(a, b candidate) int {
		// The highest sequence first; of equals what is kept already, then the smaller digest, so that
		// every collector chooses alike.
		return cmp.Or(cmp.Compare(b.Report.Sequence, a.Report.Sequence), -compareBool(a.kept, b.kept),
			cmp.Compare(a.Digest, b.Digest))
	})
	win := list[0]
	row := f.row(win, "")
	for _, c := range list[1:] {
		switch {
		case c.Digest == win.Digest, c.kept:
			// The same report twice, or the one that this report replaces.
		case c.Report.Sequence == win.Report.Sequence:
			row.Conditions = append(row.Conditions, f.found(row, ConditionCloned, c.Digest))
		default:
			row.Conditions = append(row.Conditions, f.found(row, ConditionReplayed, c.Digest))
		}
	}
	row.Conditions = mergeConditions(f.recentAlarms(row), row.Conditions)
	return win, row
}

// row is what the roll says of one report.
func (f *folder) row(c candidate, key string) RollRow {
	r := c.Report
	row := RollRow{
		Host: r.Host, State: r.State, Mode: r.Mode, Backend: printable(r.Backend, 32),
		Release: rollRelease(r.Releases), Drift: driftCount(r), Gaps: len(r.Gaps) + r.Truncated["gaps"],
		Conditions: []Condition{}, Sequence: r.Sequence, Time: r.Time, Report: c.Digest, Key: key,
	}
	for _, cond := range r.Conditions {
		row.Conditions = append(row.Conditions, Condition{
			Type: cond.Type, Since: cond.Since, Digest: printable(cond.Digest, 80), Error: printable(cond.Error, 64),
		})
	}
	row.LastSeen = f.lastSeen(row)
	if r.Time.After(f.in.Now.Add(clockLeeway)) {
		row.Conditions = append(row.Conditions, f.found(row, ConditionClockAhead, ""))
	}
	if f.in.LostAfter > 0 && f.in.Now.Sub(row.LastSeen) > f.in.LostAfter {
		lost := f.found(row, ConditionLost, "")
		lost.Since = wholeSecond(row.LastSeen.Add(f.in.LostAfter))
		row.Conditions = append(row.Conditions, lost)
		row.Said, row.State = row.State, StateUnknown
	}
	return row
}

// driftCount leaves out gaps, which have a column of their own, and held rulesets, which have a state.
func driftCount(r Report) int {
	n := r.Truncated["drift"]
	for _, d := range r.Drift {
		if d.Kind != enforce.DriftGap && d.Kind != enforce.DriftHeld {
			n++
		}
	}
	return n
}

// found is a condition of the collector's; Since goes on from the previous roll.
func (f *folder) found(row RollRow, kind, digest string) Condition {
	c := Condition{Type: kind, Since: wholeSecond(f.in.Now), Digest: digest}
	for _, old := range f.previous[row.Host+" "+row.Key].Conditions {
		if old.Type == kind && old.Digest == digest {
			c.Since = earlier(c.Since, old.Since)
		}
	}
	return c
}

// recentAlarms are those of the previous roll that a person may not have seen yet: the next report of the host
// would otherwise wipe them out within a minute.
func (f *folder) recentAlarms(row RollRow) []Condition {
	var list []Condition
	for _, c := range f.previous[row.Host+" "+row.Key].Conditions {
		alarm := c.Type == ConditionCloned || c.Type == ConditionReplayed
		c.Since = earlier(c.Since, wholeSecond(f.in.Now)) // found by a clock that was ahead
		if alarm && len(list) < maxAlarms && f.in.Now.Sub(c.Since) < alarmFor {
			list = append(list, c)
		}
	}
	return list
}

// lastSeen is when this report was first seen. A host's own clock is used only where there is no roll yet,
// so a host whose clock is wrong is not lost for that.
func (f *folder) lastSeen(row RollRow) time.Time {
	now := wholeSecond(f.in.Now)
	if old, ok := f.previous[row.Host+" "+row.Key]; ok && old.Report == row.Report {
		return earlier(now, old.LastSeen)
	}
	if gone, ok := f.removed[row.Host]; ok && gone.Report == row.Report {
		return time.Time{} // still gone
	}
	if f.in.Previous == nil {
		return earlier(now, row.Time)
	}
	return now
}

// leapt is the roll's Leapt. Both ways round: what a clock that went ahead did to the times that are remembered is
// only known to be over when as much time has passed as removes a host.
func (f *folder) leapt() *time.Time {
	prev := f.in.Previous
	if prev == nil || f.in.RemoveAfter <= 0 {
		return nil
	}
	now := wholeSecond(f.in.Now)
	if pause := now.Sub(prev.Time); pause > f.in.RemoveAfter/2 || pause < -clockLeeway {
		return &now
	}
	if prev.Leapt != nil && now.Sub(*prev.Leapt) <= f.in.RemoveAfter {
		return prev.Leapt
	}
	return nil
}

func (f *folder) gone(row RollRow) bool {
	return f.in.RemoveAfter > 0 && f.roll.Leapt == nil && f.in.Now.Sub(row.LastSeen) > f.in.RemoveAfter
}

func (f *folder) tombstone(row RollRow) Removed {
	if old, ok := f.removed[row.Host]; ok && old.Report == row.Report {
		return old
	}
	return Removed{Host: row.Host, Report: row.Report, At: wholeSecond(f.in.Now)}
}

func (f *folder) foldStrangers() {
	for _, id := range sortedKeys(f.strangers) {
		c := f.strangers[id]
		row := f.row(c, ssh.FingerprintSHA256(sshsig.PlainKey(c.Key)))
		if f.gone(row) {
			continue
		}
		f.roll.Counts.Unenrolled++
		if len(f.roll.Unenrolled) < maxUnenrolled {
			f.roll.Unenrolled = append(f.roll.Unenrolled, row)
		}
	}
	f.cut("unenrolled", f.roll.Counts.Unenrolled-len(f.roll.Unenrolled))
}

func (f *folder) foldRejected() {
	slices.SortFunc(f.rejected, func(a, b Rejected) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Reason, b.Reason))
	})
	f.roll.Counts.Rejected = len(f.rejected)
	f.roll.Rejected = append(f.roll.Rejected, f.rejected[:min(len(f.rejected), maxRejected)]...)
	f.cut("rejected", len(f.rejected)-len(f.roll.Rejected))
}

func (f *folder) cut(list string, n int) {
	if n <= 0 {
		return
	}
	if f.roll.Truncated == nil {
		f.roll.Truncated = map[string]int{}
	}
	f.roll.Truncated[list] = n
}

func (f *folder) count() {
	c := &f.roll.Counts
	c.Hosts = len(f.roll.Hosts)
	for _, row := range f.roll.Hosts {
		if row.Has(ConditionLost) {
			c.Lost++
		} else {
			c.States[row.State]++
		}
		if row.Has("Refused") {
			c.Refused++
		}
	}
}

// rollRelease is the enforced release, or the one held for audit.
func rollRelease(list []ReportRelease) *RollRelease {
	var pick *ReportRelease
	for i := range list {
		if pick == nil || list[i].Level == "enforce" && pick.Level != "enforce" {
			pick = &list[i]
		}
	}
	if pick == nil {
		return nil
	}
	return &RollRelease{
		Level: printable(pick.Level, 16), Name: printable(pick.Name, 128), Channel: printable(pick.Channel, 64),
		Epoch: pick.Epoch, Sequence: pick.Sequence, Digest: printable(pick.Digest, 80),
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
