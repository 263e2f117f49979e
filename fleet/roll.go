// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/sshsig"
	"github.com/muster-fleet/muster/enforce"
)

// RollSchema is the value of Roll.Schema.
const RollSchema = "muster.dev/roll/v1"

// MaxRoll bounds a roll that is read: about 100,000 hosts.
const MaxRoll = 64 << 20

// Conditions that a collector adds to what the host says of itself.
const (
	ConditionLost       = "Lost"       // not heard of for longer than LostAfter
	ConditionReplayed   = "Replayed"   // somebody showed an older report of this host
	ConditionCloned     = "Cloned"     // two reports with one sequence: the host's key is in use twice
	ConditionClockAhead = "ClockAhead" // the report's time lies in the collector's future
	ConditionStateLost  = "StateLost"  // the host does not remember what it reported
)

// ErrRoll is the kind of error for a roll that cannot be read or trusted.
var ErrRoll = errors.New("roll")

// Roll is roll.json: the fleet's reports, folded. It can be made again by anybody from the signed reports
// beside it; its own signature spares readers that work.
type Roll struct {
	Schema    string    `json:"schema"`
	Fleet     string    `json:"fleet"`
	Time      time.Time `json:"time"`
	Collector string    `json:"collector"`
	Counts    Counts    `json:"counts"`
	History   History   `json:"history"`
	Hosts     []RollRow `json:"hosts"`
	// Unenrolled hosts report under a key that hosts.allowed_signers does not name. They never count.
	Unenrolled []RollRow `json:"unenrolled"`
	// Rejected refs hold something that is no report of the host they name.
	Rejected []Rejected `json:"rejected"`
	// Removed hosts were lost for too long; kept here only while their ref is still there.
	Removed []Removed `json:"removed,omitempty"`
	// Truncated says how many entries of a list were left out.
	Truncated map[string]int `json:"truncated,omitempty"`
	// Leapt is when, by the clock after it, the time from one roll to the next was no pause between two rolls: a
	// collector's clock leapt, or nobody folded. Hosts look lost for it; none is removed until RemoveAfter later.
	Leapt *time.Time `json:"leapt,omitempty"`
}

// Counts are the numbers on top of the table. Lost hosts count as Lost, not under the state they last had.
type Counts struct {
	Hosts      int               `json:"hosts"`
	States     map[HostState]int `json:"states"`
	Lost       int               `json:"lost"`
	Refused    int               `json:"refused"`
	Unenrolled int               `json:"unenrolled"`
	Rejected   int               `json:"rejected"`
}

// History tells where the status branch's first commit comes from, so that a cut is seen as one.
type History struct {
	RootedAt    time.Time `json:"rootedAt"`
	PreviousTip string    `json:"previousTip,omitempty"`
}

// RollRow is one host.
type RollRow struct {
	Host  string    `json:"host"`
	State HostState `json:"state"`
	// Said is the state that a lost host reported last.
	Said       HostState    `json:"said,omitempty"`
	Mode       enforce.Mode `json:"mode"`
	Backend    string       `json:"backend"`
	Release    *RollRelease `json:"release,omitempty"`
	Drift      int          `json:"drift"`
	Gaps       int          `json:"gaps"`
	Conditions []Condition  `json:"conditions"`
	Sequence   int64        `json:"sequence"`
	// Time is the host's clock, LastSeen the collector's when it first saw this report.
	Time     time.Time `json:"time"`
	LastSeen time.Time `json:"lastSeen"`
	// Report is the SHA-256 of report.json.
	Report string `json:"report"`
	// Key is the fingerprint of an unenrolled host's key.
	Key string `json:"key,omitempty"`
}

// RollRelease is the enforced release of a host, or its audit-only one when it has no other.
type RollRelease struct {
	Level    string `json:"level"`
	Name     string `json:"name"`
	Channel  string `json:"channel"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Digest   string `json:"digest"`
}

// Rejected is a ref whose content is not a report of that host.
type Rejected struct {
	Ref    string `json:"ref"`
	Reason string `json:"reason"`
}

// Removed is a host that left the roll.
type Removed struct {
	Host   string    `json:"host"`
	Report string    `json:"report"`
	At     time.Time `json:"at"`
}

// Has reports whether the row has a condition of this type.
func (r RollRow) Has(condition string) bool {
	for _, c := range r.Conditions {
		if c.Type == condition {
			return true
		}
	}
	return false
}

// EncodeRoll renders roll.json.
func EncodeRoll(r Roll) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoll, err)
	}
	return append(b, '\n'), nil
}

// DecodeRoll reads roll.json strictly. It does not say who made it: see VerifyRoll.
func DecodeRoll(b []byte) (Roll, error) {
	var r Roll
	if len(b) > MaxRoll {
		return r, fmt.Errorf("%w: %d bytes", ErrRoll, len(b))
	}
	if err := strictJSON(b, &r); err != nil {
		return Roll{}, fmt.Errorf("%w: %s", ErrRoll, printable(err.Error(), 200))
	}
	if r.Schema != RollSchema {
		return Roll{}, fmt.Errorf("%w: schema %q, expected %q", ErrRoll, printable(r.Schema, 64), RollSchema)
	}
	for _, rows := range [][]RollRow{r.Hosts, r.Unenrolled} {
		for _, row := range rows {
			if err := CheckHostID(row.Host); err != nil {
				return Roll{}, fmt.Errorf("%w: %w", ErrRoll, err)
			}
		}
	}
	return r, nil
}

// Collectors says whose rolls are believed: the collectors of the trust file by name, and, where every host
// may collect, the enrolled hosts.
type Collectors struct {
	Keys  map[string]ssh.PublicKey
	Hosts *AllowedSigners
}

// TrustedCollectors says whom a trust file lets fold: the collectors that it names or, when it names none,
// every enrolled host.
func TrustedCollectors(trust *bundles.Trust, hosts *AllowedSigners) (Collectors, error) {
	if len(trust.Collectors) == 0 {
		return Collectors{Hosts: hosts}, nil
	}
	c := Collectors{Keys: map[string]ssh.PublicKey{}}
	for i := range trust.Collectors {
		s := &trust.Collectors[i]
		key, err := ssh.NewPublicKey(s.Public())
		if err != nil {
			return Collectors{}, fmt.Errorf("%w: collector %q: %w", ErrRoll, s.Name, err)
		}
		c.Keys[s.Name] = key
	}
	return c, nil
}

// Allows answers nil when rolls that name signs with key are believed now.
func (c Collectors) Allows(name string, key ssh.PublicKey, now time.Time) error {
	if want, ok := c.Keys[name]; ok && bytes.Equal(want.Marshal(), sshsig.PlainKey(key).Marshal()) {
		return nil
	}
	if err := c.Hosts.Check(name, key, NamespaceRoll, now); err != nil {
		return fmt.Errorf("%w: collector %q (%s): %w", ErrRoll, printable(name, 64), ssh.FingerprintSHA256(sshsig.PlainKey(key)), err)
	}
	return nil
}

// NameOf is the name under which the trust file knows a collector's key, or "".
func (c Collectors) NameOf(key ssh.PublicKey) string {
	for _, name := range sortedKeys(c.Keys) {
		if bytes.Equal(c.Keys[name].Marshal(), sshsig.PlainKey(key).Marshal()) {
			return name
		}
	}
	return ""
}

// VerifyRoll decodes a roll and checks that the collector it names signed it.
func VerifyRoll(b, sig []byte, trusted Collectors, now time.Time) (Roll, error) {
	key, err := Verify(sig, NamespaceRoll, b)
	if err != nil {
		return Roll{}, fmt.Errorf("%w: %w", ErrRoll, err)
	}
	r, err := DecodeRoll(b)
	if err != nil {
		return Roll{}, err
	}
	if err := trusted.Allows(r.Collector, key, now); err != nil {
		return Roll{}, err
	}
	return r, nil
}

// CheckRows compares every row of a roll with the signed report that it claims to rest on, and answers what
// does not agree. So a reader need not believe the collector, only the hosts.
func CheckRows(r Roll, reports []SignedReport, hosts *AllowedSigners, now time.Time) []error {
	byHost := make(map[string]SignedReport, len(reports))
	for _, s := range reports {
		byHost[s.Ref] = s
	}
	var problems []error
	for _, row := range r.Hosts {
		c, err := CheckReport(byHost[row.Host], r.Fleet, hosts, now)
		said := row.State
		if row.Said != "" {
			said = row.Said
		}
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%w: %s: %w", ErrRoll, row.Host, err))
		case !c.Enrolled:
			problems = append(problems, fmt.Errorf("%w: %s: %w", ErrRoll, row.Host, ErrNotEnrolled))
		case c.Digest != row.Report || c.Report.State != said || c.Report.Sequence != row.Sequence:
			problems = append(problems, fmt.Errorf("%w: %s: the row is not what the host signed", ErrRoll, row.Host))
		}
	}
	return problems
}
