// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/muster-fleet/muster/reconciler/config"
)

// always is a source of randomness that is none.
func always(value float64) func() float64 { return func() float64 { return value } }

// almostOne is the largest number that a source of randomness gives.
const almostOne = 1 - 1.0/(1<<53)

func TestJitter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		base, spread time.Duration
		random       float64
		want         time.Duration
	}{
		{time.Minute, 10 * time.Second, 0, time.Minute},
		{time.Minute, 10 * time.Second, 0.5, 65 * time.Second},
		{time.Minute, 10 * time.Second, almostOne, 70*time.Second - 1},
		{time.Minute, 0, almostOne, time.Minute},
		{time.Second, time.Hour, 0.25, 15*time.Minute + time.Second},
	} {
		if got := jitter(tc.base, tc.spread, always(tc.random)); got.Round(time.Microsecond) != tc.want.Round(time.Microsecond) || got >= tc.base+max(tc.spread, 1) {
			t.Errorf("%v and up to %v, at %v: %v, want %v", tc.base, tc.spread, tc.random, got, tc.want)
		}
	}
}

// TestPollSpreads: hosts with one configuration do not look at one moment, and none before its interval is over.
func TestPollSpreads(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	hourly, err := cron.ParseStandard("@hourly")
	if err != nil {
		t.Fatal(err)
	}
	one := &tenant{Tenant: Tenant{Look: config.Source{Interval: time.Minute, Jitter: 10 * time.Second}, Schedule: hourly}}
	var early, late int
	for range 1000 {
		(&Loop{}).schedulePoll(one, now)
		switch after := one.poll.Sub(now); {
		case after < time.Minute || after >= 70*time.Second:
			t.Fatalf("looks again after %v", after)
		case after < 65*time.Second:
			early++
		default:
			late++
		}
	}
	if early < 300 || late < 300 {
		t.Errorf("%d of 1000 in the first half of the spread, %d in the second", early, late)
	}
	if want := now.Add(time.Hour); !one.scheduled.Equal(want) {
		t.Errorf("the cron line's next time is %v, want %v: it has no jitter", one.scheduled, want)
	}
}
