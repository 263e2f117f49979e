// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent holds the tests of the whole agent: stories of the loop over real Git repositories with a
// kernel that is only pretended (testdata/*.txtar), and tests of the real musterd in the lab.
//
// The pretended kernel proves nothing about enforcement. It proves what the loop does with what a kernel
// says: that it looks, what it decides, what it tells, and that nothing it holds is ever lost.
package agent
