// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package failing has tests that fail in known ways: the lab's own tests run it in the guest.
package failing

import (
	"os"
	"testing"
)

func TestPasses(t *testing.T) { t.Log("fine") }

func TestFails(t *testing.T) {
	t.Run("good", func(t *testing.T) { t.Log("fine") })
	t.Run("bad", func(t *testing.T) { t.Error("as it should") })
}

func TestIsSkipped(t *testing.T) { t.Skip("because") }

func TestEndsTheProcess(t *testing.T) { os.Exit(3) }
