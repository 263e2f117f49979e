// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !measure

package bpflsm

import "time"

// clearanceSteps is how many steps TestClearances takes; with the tag measure a million.
const clearanceSteps = 20_000

// testLimit is how long the tests of this package may take on one kernel.
const testLimit = time.Hour
