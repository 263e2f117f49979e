// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"math/rand/v2"
	"time"
)

// backoff counts failures of one thing and says when to try again. The zero value is ready.
type backoff struct {
	failures int
	next     time.Time
}

// The shortest and the longest wait: short enough that a host is back within about a minute of its source.
const (
	backoffLeast = time.Second
	backoffMost  = time.Minute
)

// fail returns when to try again: doubled each time, and spread, so that a fleet does not return as one.
func (b *backoff) fail(now time.Time, random func() float64) time.Time {
	wait := backoffMost
	if b.failures < 6 {
		wait = min(backoffLeast<<b.failures, backoffMost)
	}
	b.failures++
	b.next = now.Add(wait/2 + time.Duration(random()*float64(wait)/2))
	return b.next
}

// succeed forgets the failures.
func (b *backoff) succeed() { *b = backoff{} }

// blocked is true while it is too early to try again.
func (b *backoff) blocked(now time.Time) bool { return b.failures > 0 && now.Before(b.next) }

// jitter returns base plus a random part of spread.
func jitter(base, spread time.Duration, random func() float64) time.Duration {
	return base + time.Duration(random()*float64(spread))
}

// random is the default source of jitter; predictability would hurt nobody.
func random() float64 { return rand.Float64() } //nolint:gosec // not a secret
