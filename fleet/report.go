// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package fleet is what a fleet knows of itself: the signed report of each host, the roll that folds them,
// and drift across hosts. Its functions are pure; fleet/statusref moves reports through Git refs.
package fleet

import (
	"time"

	"github.com/muster-fleet/muster/enforce"
)

//go:generate go test -run ^TestSchemas$ . -update

// ReportSchema is the value of Report.Schema.
const ReportSchema = "muster.dev/report/v1"

// HostState is the one word a host says about itself.
type HostState string

// The seven states.
const (
	StateEnforced HostState = "Enforced"
	StateAudited  HostState = "Audited"
	StateDrifted  HostState = "Drifted"
	StatePartial  HostState = "Partial"
	StateHeld     HostState = "Held"
	StateStalled  HostState = "Stalled"
	StateUnknown  HostState = "Unknown"
)

// ConditionRestartNeeded says that the configuration was changed where only a restart takes it up.
const ConditionRestartNeeded = "RestartNeeded"

// ConditionStoodDown says that a signed stand-down lifts the host's self-protection, ConditionResisted that acts against the
// agent were denied, ConditionExposed that self-protection was asked for and is not in force as it should be.
const (
	ConditionStoodDown = "StoodDown"
	ConditionResisted  = "Resisted"
	ConditionExposed   = "Exposed"
)

// Condition is one thing about a host besides its state.
type Condition struct {
	Type    string    `json:"type"`             // Stale Refused Reverted Revoked Forked StateLost HistoryRewritten Suspended Lost Unprotected ClockBackwards MirrorFailed MirrorRefused RestartNeeded StoodDown Resisted Exposed
	Tenant  string    `json:"tenant,omitempty"` // whose release it is about; "" is the host's own, or the host
	Since   time.Time `json:"since"`
	Digest  string    `json:"digest,omitempty"`
	Error   string    `json:"error,omitempty"` // the refusal's name, e.g. "rollback"
	Message string    `json:"message,omitempty"`
}

// Report is report.json: what one host says, signed with its own key. At most 64 KiB.
type Report struct {
	Schema     string             `json:"schema"`
	Fleet      string             `json:"fleet"`
	Host       string             `json:"host"` // [a-z0-9.-]{1,63}
	Sequence   int64              `json:"sequence"`
	Time       time.Time          `json:"time"`
	Agent      string             `json:"agent"`
	Kernel     string             `json:"kernel"`
	OS         string             `json:"os,omitempty"`
	LSMs       []string           `json:"lsms"`
	Backend    string             `json:"backend"`
	Mode       enforce.Mode       `json:"mode"`
	Releases   []ReportRelease    `json:"releases"`
	State      HostState          `json:"state"`
	Conditions []Condition        `json:"conditions"`
	Subjects   []ReportSubject    `json:"subjects"`
	Drift      []enforce.Drift    `json:"drift"`
	Gaps       []enforce.Gap      `json:"gaps"`
	Events     []EventCount       `json:"events"`
	Losses     map[string]uint64  `json:"losses,omitempty"`
	Inventory  ReportInventory    `json:"inventory"`
	Timings    map[string]float64 `json:"timings,omitempty"` // seconds
	// Truncated says, for each list that was cut to fit, how many entries were left out.
	Truncated map[string]int `json:"truncated,omitempty"`
}

// ReportRelease is a release that the host holds.
type ReportRelease struct {
	Tenant   string   `json:"tenant,omitempty"` // "" is the host's own
	Level    string   `json:"level"`            // enforce or audit
	Name     string   `json:"name"`
	Channel  string   `json:"channel"`
	Epoch    int64    `json:"epoch"`
	Sequence int64    `json:"sequence"`
	Digest   string   `json:"digest"`
	Revision string   `json:"revision,omitempty"`
	Signers  []string `json:"signers"`
}

// ReportSubject compares declared with observed for one subject.
type ReportSubject struct {
	Subject  enforce.SubjectID `json:"subject"`
	Declared string            `json:"declared"` // ruleset digest
	Observed string            `json:"observed"`
	Rules    int               `json:"rules"`
	Held     string            `json:"held,omitempty"`
}

// EventCount counts events of one policy and action since the agent's programs were loaded.
type EventCount struct {
	Policy string `json:"policy"`
	Action string `json:"action"`
	Count  uint64 `json:"count"`
}

// ReportInventory is a summary of what the host has.
type ReportInventory struct {
	Labels map[string]string `json:"labels"`
	Counts map[string]int    `json:"counts,omitempty"`
}
