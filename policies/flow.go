// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"fmt"
)

// Flow is what an ObjectFlow's Detail holds. An empty list means any. Fields stand in the order of their
// keys so that the encoding is canonical.
type Flow struct {
	Direction  string   `json:"direction"` // ingress or egress
	Duration   string   `json:"duration,omitempty"`
	Interfaces []string `json:"interfaces,omitempty"`
	Level      string   `json:"level,omitempty"` // pod or policy
	Limit      string   `json:"limit,omitempty"`
	// Peers are prefixes with their host bits cleared.
	Peers []string   `json:"peers,omitempty"`
	Ports []FlowPort `json:"ports,omitempty"`
}

// FlowPort is one range of ports; Protocol is TCP, UDP, SCTP or "" for all of them.
type FlowPort struct {
	First    int    `json:"first"`
	Last     int    `json:"last"`
	Protocol string `json:"protocol,omitempty"`
}

// Flow decodes the Detail of an ObjectFlow.
func (o Object) Flow() (Flow, error) {
	var f Flow
	if err := json.Unmarshal([]byte(o.Detail), &f); err != nil {
		return Flow{}, fmt.Errorf("flow detail: %w", err)
	}
	return f, nil
}

// Device is what an ObjectDevice's Detail holds: numbers and names as written.
type Device struct {
	Class    string `json:"class"`
	Level    int    `json:"level,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	SubClass string `json:"subClass,omitempty"`
}
