// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/fleet"
)

// What a host accepted is remembered in several places, so that losing one of them does not let an older release in:
// the state file, the cache, the kernel's memory, and the host's own reports. The highest of them is the floor.

// KernelMemory is a backend that keeps a few bytes in the kernel, for as long as it runs, whatever becomes of the disk.
type KernelMemory interface {
	// Remember keeps value under name.
	Remember(name string, value []byte) error
	// Recall answers what is kept under name, nil for nothing.
	Recall(name string) ([]byte, error)
}

// Recaller is a Reporter that finds this host's own earlier reports; it answers only what the host's key signed.
type Recaller interface {
	// Spooled answers the newest report that is on this disk, nil for none.
	Spooled() (*fleet.Report, error)
	// Sent answers what the fleet's status repository holds of this host, nil for nothing. It may take long, and is
	// called beside everything else.
	Sent(ctx context.Context, host string) (*fleet.Report, error)
}

// of names a tenant's channel.
func (t *tenant) of() string { return t.Trust.Fleet + "/" + t.Trust.Channel }

// memoryName is where the kernel keeps a tenant's marks: another fleet's are of no meaning.
func (t *tenant) memoryName() string { return "seen/" + t.Name + "/" + t.of() }

// etch keeps in the kernel what the disk has already. That it cannot is reported, and refuses nothing.
func (l *Loop) etch(t *tenant, now time.Time) {
	memory, ok := l.deps.Backend.(KernelMemory)
	if !ok {
		return
	}
	value, err := json.Marshal(bundles.Seen{Of: t.seen.Of, Enforce: t.seen.Enforce, Audit: t.seen.Audit, Trust: t.seen.Trust, Floor: t.seen.Floor.UTC()})
	if err == nil {
		err = memory.Remember(t.memoryName(), value)
	}
	if err != nil {
		t.trouble(areaMemory, err, now)
		l.deps.Log.Error("marks not kept in the kernel", "tenant", t.Name, "error", err)
		return
	}
	t.solve(areaMemory)
}

// etched answers what the kernel remembers of a tenant, the zero Seen for nothing.
func (l *Loop) etched(t *tenant) (bundles.Seen, error) {
	var seen bundles.Seen
	memory, ok := l.deps.Backend.(KernelMemory)
	if !ok {
		return seen, nil
	}
	value, err := memory.Recall(t.memoryName())
	if err != nil || value == nil {
		return seen, err //nolint:wrapcheck // says what it is about
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&seen); err != nil {
		return bundles.Seen{}, fmt.Errorf("the marks in the kernel: %w", err)
	}
	return seen, nil
}

// reported is what an earlier report of this host says that it held of a tenant.
func (t *tenant) reported(r *fleet.Report) bundles.Seen {
	var seen bundles.Seen
	if r == nil {
		return seen
	}
	for _, held := range r.Releases {
		if held.Tenant != t.Name || held.Name+"/"+held.Channel != t.of() {
			continue
		}
		mark := bundles.Mark{Epoch: held.Epoch, Sequence: held.Sequence, Digest: held.Digest}
		said := bundles.Seen{Audit: mark}
		if held.Level == string(bundles.LevelEnforce) {
			said.Enforce = mark
		}
		seen = seen.Raise(said)
	}
	return seen
}

// floors asks everything on this host but the state file and the cache. What cannot be read is said.
func (l *Loop) floors(t *tenant) (floor bundles.Seen, problems []error) {
	floor, err := l.etched(t)
	if err != nil {
		problems = append(problems, err)
	}
	recaller, ok := l.deps.Reporter.(Recaller)
	if !ok {
		return floor, problems
	}
	report, err := recaller.Spooled()
	if err != nil {
		problems = append(problems, err)
	}
	return floor.Raise(t.reported(report)), problems
}

// reaches says that a memory is not below another.
func reaches(have, want bundles.Seen) bool {
	r := have.Raise(want)
	return r.Enforce == have.Enforce && r.Audit == have.Audit && r.Trust == have.Trust
}

// recallTimeout bounds the question for the host's own last report, which comes before the look at the source; a quarter
// of the look's time does too, so that a status repository that hangs never takes the time for policy.
const recallTimeout = 10 * time.Second

// recall asks the fleet's status repository, beside the loop, for what this host reported last.
func (l *Loop) recall(ctx context.Context, hostID string, result *pullResult) {
	recaller, ok := l.deps.Reporter.(Recaller)
	if !ok {
		return
	}
	limit := recallTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/4)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result.report, result.recallErr = recaller.Sent(ctx, hostID)
}

// recalled takes in what the host's own last report says. A host that cannot ask goes on without, and asks again.
func (l *Loop) recalled(result *pullResult, now time.Time) {
	t := result.tenant
	if !t.forgot || !result.asked {
		return
	}
	if result.recallErr != nil {
		l.deps.Log.Warn("the host's own last report cannot be read", "tenant", t.Name, "error", result.recallErr)
		t.trouble(areaMemory, fmt.Errorf("the host's own last report cannot be read, which may tell of a newer release: %w", result.recallErr), now)
		return
	}
	t.forgot = false
	t.solve(areaMemory)
	said := t.reported(result.report)
	if reaches(t.seen, said) {
		return
	}
	t.seen = t.seen.Raise(said)
	l.etch(t, now)
	t.mark("StateLost", "this host's own last report tells of a newer release than its state does", now)
	l.freezeIfOlder(t, now)
	if err := t.Seen.Save(t.seen); err != nil {
		t.trouble(areaState, classify(&stateError{fmt.Errorf("marks: %w", err)}, 0, t.poll), now)
	}
}
