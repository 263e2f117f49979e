// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !measure

package bpflsm

import "time"

// TestClearances takes so many steps in each of so many worlds; with the tag measure a million in all.
const (
	clearanceWorlds = 1
	clearanceSteps  = 20_000
)

// testLimit is how long the tests of this package may take on one kernel.
const testLimit = time.Hour
