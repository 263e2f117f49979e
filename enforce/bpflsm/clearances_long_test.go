// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package bpflsm

const clearanceSteps = 1_000_000
