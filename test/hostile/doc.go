// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package hostile holds one table: every broken or hostile input that this project knows how to make, fed to
// the real musterd, and what it gets. Each input must get a named error, must leave the last good ruleset
// enforced, and must lose nothing: the next good release is accepted.
//
// On any machine the table runs without a kernel backend and proves names and recovery. In a machine of the lab it
// runs with BPF-LSM, where another process than the agent tries the files; only that proves enforcement:
// go test -tags measure ./test/hostile -run TestInVM (with -update it writes docs/bad-input.md).
package hostile
