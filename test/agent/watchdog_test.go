// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestWatchdog stops the loop in the middle of a step: nobody tells the service manager then that all is well, and
// it is told again when the loop goes on.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var alive atomic.Int64
	w.notify = func(state string) {
		if state == "WATCHDOG=1" {
			alive.Add(1)
		}
	}
	w.watchdog = 60 * time.Millisecond
	w.start()
	more := func() func() bool {
		before := alive.Load()
		return func() bool { return alive.Load() > before+2 }
	}
	w.await("signs of life", more())

	stuck, release := make(chan struct{}), make(chan struct{})
	w.kernel.set(func() { w.kernel.hold = func() { close(stuck); <-release } })
	<-stuck
	before := alive.Load()
	<-time.After(10 * w.watchdog) // only time can show that nothing happens
	if n := alive.Load() - before; n != 0 {
		t.Errorf("%d signs of life while the loop was stuck", n)
	}
	close(release)
	w.await("signs of life again", more())
}
