// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package scripts runs the stories *.txtar: the real commands, as a person would type them, in a directory of
// their own with a home, a Git configuration and a clock of their own where the tools permit.
package scripts
