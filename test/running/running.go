// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package running runs an agent's loop beside a test, over whatever kernel and source the test gave it.
package running

import (
	"context"
	"testing"

	"github.com/muster-fleet/muster/reconciler"
)

// Start begins the loop. The function that it returns ends it, waits for that and says what went wrong; called again it
// does nothing.
func Start(t testing.TB, loop *reconciler.Loop) (halt func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // the test's cleaning up ends it
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	return func() {
		if ctx.Err() != nil {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent: %v", err)
		}
	}
}
