// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package bpflsm

import "time"

const (
	clearanceWorlds = 4
	clearanceSteps  = 250_000
)

// testLimit is how long the tests of this package may take on one kernel.
const testLimit = 6 * time.Hour
