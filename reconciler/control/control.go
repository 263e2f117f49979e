// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package control is the agent's control socket: HTTP and JSON over a unix socket that only root, or the
// user who runs the agent, may use.
//
// The types here are what travels; Client is what the command line links and Server is what the agent
// serves. The package knows neither a backend nor the loop: the agent hands it an Agent.
package control

import (
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
)

// Outcome is how one look at the source ended.
type Outcome string

// The outcomes.
const (
	OutcomeEnforced  Outcome = "enforced"
	OutcomeAudited   Outcome = "audited" // the host, or the newest release, is in audit
	OutcomeHeld      Outcome = "held"
	OutcomeRefused   Outcome = "refused"
	OutcomeWaiting   Outcome = "waiting" // will be tried again
	OutcomeStalled   Outcome = "stalled" // needs a person
	OutcomeSuspended Outcome = "suspended"
	OutcomeOff       Outcome = "off"
	OutcomeObserved  Outcome = "observed" // this kernel has no backend: nothing is enforced
)

// Problem is an error with its stable name.
type Problem struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Tenant  string `json:"tenant,omitempty"` // "" is the host's own
	// Digest and Revision name the release that was refused, when it is known.
	Digest   string    `json:"digest,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Since    time.Time `json:"since"`
}

// Status is everything that the agent says about itself.
type Status struct {
	Version string        `json:"version"`
	Report  *fleet.Report `json:"report"`
	// Host is what the agent knows of the machine itself, and selects policies by.
	Host inventory.Node `json:"host"`
	// Rounds counts finished rounds since the start; it only grows while the loop lives.
	Rounds uint64 `json:"rounds"`
	// Revision is the newest revision seen at the source, NextPoll when it is looked at again.
	Revision string    `json:"revision,omitempty"`
	NextPoll time.Time `json:"nextPoll"`
	LastPoll time.Time `json:"lastPoll"`
	// Tenants are all that this host follows, when there are several; the first is its own.
	Tenants []Tenant `json:"tenants,omitempty"`
	// Problems are what keeps the agent from the newest release or from the declared state.
	Problems   []Problem   `json:"problems"`
	Suspension *Suspension `json:"suspension,omitempty"`
	// Repairs are the newest differences that were found and corrected.
	Repairs []Repair `json:"repairs"`
	// Components are the kernel objects as they were last seen.
	Components []enforce.Component `json:"components"`
}

// Tenant is one pair of trust and source, and when the source was looked at.
type Tenant struct {
	Name     string    `json:"name"`
	Fleet    string    `json:"fleet"`
	Channel  string    `json:"channel"`
	Trust    int64     `json:"trust"` // the version of the trust file in force
	Revision string    `json:"revision,omitempty"`
	NextPoll time.Time `json:"nextPoll"`
	LastPoll time.Time `json:"lastPoll"`
}

// SyncRequest asks the agent to look at its source now.
type SyncRequest struct {
	// Wait answers only when the newest revision is enforced or refused.
	Wait bool `json:"wait"`
	// Reload reads configuration, labels and trust again first.
	Reload bool `json:"reload"`
}

// SyncResult says what came of it.
type SyncResult struct {
	Outcome  Outcome               `json:"outcome"`
	Revision string                `json:"revision,omitempty"`
	Release  *fleet.ReportRelease  `json:"release,omitempty"`
	Problem  *Problem              `json:"problem,omitempty"`
	Report   *fleet.Report         `json:"report"`
	Subjects []fleet.ReportSubject `json:"subjects"`
}

// Plan is what the agent would do to the kernel now, or what an offline plan found.
type Plan struct {
	Release *fleet.ReportRelease `json:"release,omitempty"`
	// Steps in order, as text; empty when nothing is to be done.
	Steps   []PlanStep      `json:"steps"`
	Changes []RuleChange    `json:"changes"`
	Drift   []enforce.Drift `json:"drift"`
	Gaps    []enforce.Gap   `json:"gaps"`
	Held    string          `json:"held,omitempty"`
	// Audit is the plan of a release that has enough signers for audit only.
	Audit *Plan `json:"audit,omitempty"`
}

// PlanStep is one step of a plan.
type PlanStep struct {
	Kind    string            `json:"kind"` // attach, publish, withdraw, detach
	Subject enforce.SubjectID `json:"subject,omitempty"`
	Text    string            `json:"text"`
}

// RuleChange is a rule that a plan adds or removes.
type RuleChange struct {
	Op      string            `json:"op"` // "+" or "-"
	Subject enforce.SubjectID `json:"subject"`
	Policy  string            `json:"policy"`
	Rule    string            `json:"rule"`
}

// Rulesets is what this host should obey, and under which conditions.
type Rulesets struct {
	Rulesets []*enforce.Ruleset `json:"rulesets"`
	Gaps     []enforce.Gap      `json:"gaps"`
	// Observed is what the kernel was last seen to hold.
	Observed map[enforce.SubjectID]enforce.SubjectState `json:"observed"`
	// Labels, Postures, Visible and AllowHostAllowlist let the same functions run offline as they would here.
	Labels             map[string]string    `json:"labels"`
	Hostname           string               `json:"hostname"`
	Postures           enforce.Postures     `json:"postures"`
	Visible            []policies.Class     `json:"visible,omitempty"`
	AllowHostAllowlist bool                 `json:"allowHostAllowlist"`
	Mode               enforce.Mode         `json:"mode"`
	Capabilities       enforce.Capabilities `json:"capabilities"`
	// Protect is what must stay possible here, with what the agent itself needs and what its configuration adds.
	Protect []enforce.ProtectPair `json:"protect,omitempty"`
}

// SuspendRequest holds the host where it is.
type SuspendRequest struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// Suspension is a SuspendRequest in force.
type Suspension struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
	Since  time.Time `json:"since"`
}

// StandDown is a signed stand-down in force.
type StandDown struct {
	Until   time.Time `json:"until"`
	Signers []string  `json:"signers"`
	Reason  string    `json:"reason"`
}

// The paths of the API.
const (
	pathStatus    = "/v1/status"
	pathSync      = "/v1/sync"
	pathPlan      = "/v1/plan"
	pathRulesets  = "/v1/rulesets"
	pathSuspend   = "/v1/suspend"
	pathResume    = "/v1/resume"
	pathReload    = "/v1/reload"
	pathStandDown = "/v1/stand-down"
	pathEvents    = "/v1/events"
	pathFlush     = "/v1/events/flush"
)

// Limits of one request; answers of the agent are trusted and larger.
const (
	maxRequest  = 64 << 10
	maxAnswer   = 256 << 20
	maxReason   = 1024
	maxSuspend  = 30 * 24 * time.Hour
	maxClients  = 32
	headTimeout = 5 * time.Second
)

// Repair is a difference that was found in the kernel and corrected.
type Repair struct {
	Time  time.Time     `json:"time"`
	Drift enforce.Drift `json:"drift"`
}
