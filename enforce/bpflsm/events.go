// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// ErrNoReader says that nobody reads events, so that none can be waited for.
var ErrNoReader = errors.New("no reader of events is running")

// Reasons of losses that the agent itself counts; those of the kernel are named in lossNames.
const (
	lossUnknownRuleset = "unknown-ruleset"
	lossDecode         = "decode"
	lossMarkOverflow   = "mark-overflow"
	lossMarkFull       = "mark"
	lossMarkUnread     = "mark-unread"
)

// keptImages is how many rulesets events can refer to: those in the ring when it is swapped.
const keptImages = 16

// eventReader reads the ring, whoever attaches which, and remembers what the numbers in events mean.
type eventReader struct {
	mu      sync.Mutex
	images  map[uint64]*Image
	order   []uint64
	events  *ebpf.Map
	ring    *ringbuf.Reader
	changed chan struct{} // closed when ring changes
	running int
	flushed chan struct{} // closed when the flush under way has been read
	losses  map[string]uint64

	flushing sync.Mutex // one flush at a time, so that its end is its own
}

func (r *eventReader) init() {
	r.images, r.losses = map[uint64]*Image{}, map[string]uint64{}
	r.changed = make(chan struct{})
}

// know remembers an image's rules, without its bytes.
func (r *eventReader) know(image *Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The one in force is told again at every look, so that it is never the oldest.
	r.order = slices.DeleteFunc(r.order, func(id uint64) bool { return id == image.ID })
	r.images[image.ID] = &Image{ID: image.ID, Audits: image.Audits, ruleset: image.ruleset}
	if r.order = append(r.order, image.ID); len(r.order) > keptImages {
		delete(r.images, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *eventReader) image(id uint64) *Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.images[id]
}

func (r *eventReader) lose(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.losses[reason]++
}

// attach reads from this ring from now on.
func (r *eventReader) attach(events *ebpf.Map) error {
	same, err := sameMap(r.events, events)
	if err != nil || same {
		return err
	}
	clone, err := events.Clone()
	if err != nil {
		return fmt.Errorf("keep the event ring: %w", err)
	}
	ring, err := ringbuf.NewReader(clone)
	if err != nil {
		_ = clone.Close()
		return fmt.Errorf("read the event ring: %w", err)
	}
	r.replace(clone, ring)
	return nil
}

func (r *eventReader) detach() { r.replace(nil, nil) }

func (r *eventReader) replace(events *ebpf.Map, ring *ringbuf.Reader) {
	r.mu.Lock()
	oldEvents, oldRing := r.events, r.ring
	r.events, r.ring = events, ring
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if oldRing != nil {
		_ = oldRing.Close()
		_ = oldEvents.Close()
	}
}

func sameMap(a, b *ebpf.Map) (bool, error) {
	if a == nil || b == nil {
		return a == b, nil
	}
	ai, err := a.Info()
	if err != nil {
		return false, err
	}
	bi, err := b.Info()
	if err != nil {
		return false, err
	}
	aid, _ := ai.ID()
	bid, _ := bi.ID()
	return aid == bid, nil
}

// Events implements enforce.EventSource. It may be called before anything is attached, and outlives
// attaching and detaching.
func (b *Backend) Events(ctx context.Context, sink func(enforce.Event)) error {
	r := &b.reader
	r.run(1)
	defer r.run(-1)
	for ctx.Err() == nil {
		r.mu.Lock()
		ring, changed := r.ring, r.changed
		r.mu.Unlock()
		if ring == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := b.drain(ctx, ring, sink); err != nil {
			return err
		}
	}
	return nil
}

// drain hands events on until the ring is closed or ctx ends.
func (b *Backend) drain(ctx context.Context, ring *ringbuf.Reader, sink func(enforce.Event)) error {
	// Not by a deadline: setting one waits for the read that it is to end.
	defer context.AfterFunc(ctx, func() { _ = ring.Flush() })()
	var record ringbuf.Record
	for {
		switch err := ring.ReadInto(&record); {
		case err == nil:
			b.deliver(record.RawSample, sink)
		case errors.Is(err, ringbuf.ErrFlushed):
			b.reader.endFlush()
			if ctx.Err() != nil {
				return nil
			}
		case errors.Is(err, ringbuf.ErrClosed):
			b.reader.endFlush()
			return nil
		default:
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *eventReader) run(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running += n
}

func (r *eventReader) endFlush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flushed != nil {
		close(r.flushed)
		r.flushed = nil
	}
}

// Flush returns when every event that was emitted before the call has been handed to the sink of Events.
func (b *Backend) Flush(ctx context.Context) error {
	r := &b.reader
	r.flushing.Lock()
	defer r.flushing.Unlock()
	r.mu.Lock()
	if r.running == 0 || r.ring == nil {
		r.mu.Unlock()
		return ErrNoReader
	}
	done := make(chan struct{})
	r.flushed = done
	err := r.ring.Flush()
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("flush the event ring: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lossNames are the kernel's counters that mean a loss or an exit without a decision by rules.
var lossNames = map[bpf.MusterCounter]string{
	bpf.MusterCounterCOUNT_SCRATCH:       "scratch",
	bpf.MusterCounterCOUNT_IMAGE:         "image",
	bpf.MusterCounterCOUNT_UNBUILDABLE:   "path",
	bpf.MusterCounterCOUNT_RACED:         "path-raced",
	bpf.MusterCounterCOUNT_NO_SEQUENCE:   "path-unguarded",
	bpf.MusterCounterCOUNT_LABEL_MEMORY:  "label",
	bpf.MusterCounterCOUNT_SOURCE_PATH:   "source-path",
	bpf.MusterCounterCOUNT_MARK_FULL:     lossMarkFull,
	bpf.MusterCounterCOUNT_MARK_OVERFLOW: lossMarkOverflow,
	bpf.MusterCounterCOUNT_RING_FULL:     "ring-full",
	bpf.MusterCounterCOUNT_AUDITS:        "audits",
}

// Losses implements enforce.EventSource. Reasons that never occurred are left out.
func (b *Backend) Losses() (map[string]uint64, error) {
	losses := map[string]uint64{}
	b.reader.mu.Lock()
	for reason, n := range b.reader.losses {
		losses[reason] = n
	}
	b.reader.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	counters := b.maps[bpf.MusterMapCounters]
	if counters == nil {
		return losses, nil
	}
	for counter, reason := range lossNames {
		n, err := readCounter(counters, counter)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			losses[reason] += n
		}
	}
	return losses, nil
}

func readCounter(counters *ebpf.Map, counter bpf.MusterCounter) (uint64, error) {
	var perCPU []uint64
	if err := counters.Lookup(uint32(counter), &perCPU); err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}
