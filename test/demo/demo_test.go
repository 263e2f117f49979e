// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

// The demo itself is `make demo`; here is what it would accept.

func TestPunctual(t *testing.T) {
	t.Parallel()
	for took, late := range map[time.Duration]bool{145 * time.Second: false, 3 * time.Minute: false, 181 * time.Second: true} {
		if err := punctual(took); (err != nil) != late {
			t.Errorf("%v: %v", took, err)
		}
	}
}

// TestBothRepairs: a step about two kinds of damage accepts no output that tells of one.
func TestBothRepairs(t *testing.T) {
	t.Parallel()
	const (
		well = "no drift: the kernel holds what is declared\n"
		pin  = "2026-01-01T10:00:00Z  missing        link exec_check   /sys/fs/bpf/muster/1/link_exec_check does not exist\n"
		slot = "2026-01-01T10:00:00Z  missing  host  sha256:00112233  no ruleset\n"
	)
	var step run
	for _, s := range tampering() {
		for _, r := range s.runs {
			if r.command == "muster drift" {
				step = r
			}
		}
	}
	for output, right := range map[string]bool{
		well:                          false,
		well + "\nrepaired:\n" + pin:  false,
		well + "\nrepaired:\n" + slot: false,
		"SEVERITY  KIND\n" + "\nrepaired:\n" + pin + slot: false,
		well + "\nrepaired:\n" + pin + slot:               true,
	} {
		if err := step.judge(output, 0); (err == nil) != right {
			t.Errorf("%q: %v", output, err)
		}
	}
}
