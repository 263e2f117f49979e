// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import "time"

// What the loop waits for is due by the clock that nobody sets: times that are compared with each other while the
// agent runs keep the monotonic reading that they came with. What is remembered of the wall clock must not have one:
// two readings that have it are compared by it, and no clock would ever have gone back.

// wallTime is what the wall clock shows, and nothing else.
func wallTime(now time.Time) time.Time { return now.UTC().Round(0) }

// steady is a time that the wall clock shows and that it did not leap to: no later than what it showed at the agent's
// start and what has passed since. The floor of freshness is raised by it. A leap ahead is believed while it lasts; as a
// floor it would make good releases stale for as long as it went ahead, with nothing but hands to end that.
func (l *Loop) steady(now time.Time) time.Time {
	expected := wallTime(l.started).Add(now.Sub(l.started))
	if expected.Before(wallTime(now)) {
		return expected
	}
	return wallTime(now)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
