// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !measure

package bpflsm

// clearanceSteps is how many steps TestClearances takes; with the tag measure a million.
const clearanceSteps = 20_000
