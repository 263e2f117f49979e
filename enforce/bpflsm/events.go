// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

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
	session *session
	changed chan struct{} // closed when session changes
	running int
	losses  map[string]uint64

	flushing chan struct{} // holds one while a flush is under way
}

// session is what events are read from between an attach and the next.
type session struct {
	ring      *ringbuf.Reader
	events    *ebpf.Map
	folds     *ebpf.Map
	counters  *ebpf.Map
	foldSpec  *ebpf.MapSpec
	harvested uint64 // events that had been offered at the last harvest
	reading   bool   // by drain, which then closes the maps

	flushed chan struct{} // closed when what the flush under way waits for has been handed on

	taken  atomic.Uint64 // bytes of the ring that have been handed on
	target atomic.Uint64 // taken when a flush is over; 0 when there is none
}

func (s *session) close() {
	for _, m := range []*ebpf.Map{s.events, s.folds, s.counters} {
		_ = m.Close()
	}
}

func (r *eventReader) init() {
	r.images, r.losses = map[uint64]*Image{}, map[string]uint64{}
	r.changed, r.flushing = make(chan struct{}), make(chan struct{}, 1)
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

func (r *eventReader) lose(reason string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.losses[reason] += n
}

// attach reads from these maps from now on.
func (r *eventReader) attach(maps map[string]*ebpf.Map, folds *ebpf.MapSpec) error {
	r.mu.Lock()
	var had *ebpf.Map
	if r.session != nil {
		had = r.session.events
	}
	same, err := sameMap(had, maps[bpf.MusterMapEvents])
	r.mu.Unlock()
	if err != nil || same {
		return err
	}
	next := &session{foldSpec: folds}
	for name, to := range map[string]**ebpf.Map{
		bpf.MusterMapEvents: &next.events, bpf.MusterMapFolds: &next.folds, bpf.MusterMapCounters: &next.counters,
	} {
		if *to, err = maps[name].Clone(); err != nil {
			next.close()
			return fmt.Errorf("keep the map %s: %w", name, err)
		}
	}
	if next.ring, err = ringbuf.NewReader(next.events); err != nil {
		next.close()
		return fmt.Errorf("read the event ring: %w", err)
	}
	r.replace(next)
	return nil
}

func (r *eventReader) detach() { r.replace(nil) }

func (r *eventReader) replace(next *session) {
	r.mu.Lock()
	old := r.session
	r.session = next
	close(r.changed)
	r.changed = make(chan struct{})
	read := old != nil && old.reading
	r.mu.Unlock()
	if old == nil {
		return
	}
	_ = old.ring.Close()
	if !read {
		r.endFlush(old, nil)
		old.close()
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

// harvestInterval is how long what was counted in the kernel waits to be told, and how long a burst lasts.
const harvestInterval = time.Second

// Events implements enforce.EventSource. It may be called before anything is attached, and outlives
// attaching and detaching.
func (b *Backend) Events(ctx context.Context, sink func(enforce.Event)) error {
	r := &b.reader
	r.run(1)
	defer r.run(-1)
	d := newDecoder(r, b.scriptPath)
	for ctx.Err() == nil {
		r.mu.Lock()
		s, changed := r.session, r.changed
		if s != nil {
			s.reading = true
		}
		r.mu.Unlock()
		if s == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := b.read(ctx, d, s, sink); err != nil {
			return err
		}
	}
	return nil
}

// read drains a session and wakes itself for what was counted; when the session has been replaced, it is
// closed.
func (b *Backend) read(ctx context.Context, d *decoder, s *session, sink func(enforce.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var waking sync.WaitGroup
	waking.Go(func() { b.wake(ctx) })
	err := b.drain(ctx, d, s, sink)
	cancel()
	r := &b.reader
	r.mu.Lock()
	replaced := r.session != s
	s.reading = false
	r.mu.Unlock()
	r.endFlush(s, nil)
	waking.Wait()
	if replaced {
		s.close()
	}
	return err
}

// wake has what was counted told from time to time, and follows directories and symlinks that got names.
func (b *Backend) wake(ctx context.Context) {
	ticker := time.NewTicker(harvestInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = b.Flush(ctx) // without a reader there is nobody to tell
			if err := b.follow(ctx); err != nil && ctx.Err() == nil {
				b.log.Warn("protected files not marked again", "error", err)
			}
		}
	}
}

func (r *eventReader) run(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running += n
}

// ringRecordHead is what the kernel puts before each record of a ring; records are padded to the same.
const ringRecordHead = 8

// ringRecordMax is as large as a record can be in the ring, padding included.
const ringRecordMax = uint64(2*ringRecordHead + unsafe.Sizeof(bpf.MusterEvent{}) + uintptr(bpf.MusterLimitEVENT_DATA))

// drain hands events on until the ring is closed or ctx ends.
func (b *Backend) drain(ctx context.Context, d *decoder, s *session, sink func(enforce.Event)) error {
	// Not by a deadline: setting one waits for the read that it is to end.
	defer context.AfterFunc(ctx, func() { _ = s.ring.Flush() })()
	var record ringbuf.Record
	for {
		err := s.ring.ReadInto(&record)
		switch {
		case err == nil:
			d.deliver(record.RawSample, sink)
			size := (len(record.RawSample) + 2*ringRecordHead - 1) / ringRecordHead * ringRecordHead
			// In a storm the ring is never empty, and a flush is over all the same.
			if target := s.target.Load(); s.taken.Add(uint64(size)) >= target && target != 0 {
				b.finishFlush(d, s, sink)
			}
			continue
		case !errors.Is(err, ringbuf.ErrFlushed) && !errors.Is(err, ringbuf.ErrClosed):
			return fmt.Errorf("read events: %w", err)
		}
		b.finishFlush(d, s, sink)
		if errors.Is(err, ringbuf.ErrClosed) || ctx.Err() != nil {
			return nil
		}
	}
}

// finishFlush ends the flush under way if its time has come: what was counted is handed on after what was
// told before it.
func (b *Backend) finishFlush(d *decoder, s *session, sink func(enforce.Event)) {
	done, due := b.reader.due(s)
	if !due {
		return
	}
	if err := d.harvest(s, sink); err != nil {
		b.log.Error("counted events not read; trying again", "error", err)
	}
	if done != nil {
		b.reader.endFlush(s, done)
	}
}

// due says whether all that the flush under way waits for has been read, and which flush that is. When the
// ring is neither empty nor read far enough the reader is woken again.
func (r *eventReader) due(s *session) (flushed chan struct{}, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	target := s.target.Load()
	// A session that is no longer the reader's is being closed: its ring must not be asked.
	if r.session != s || target != 0 && s.taken.Load() >= target || s.ring.AvailableBytes() == 0 {
		s.target.Store(0)
		return s.flushed, true
	}
	_ = s.ring.Flush()
	return nil, false
}

// endFlush ends this flush of a session, unless its caller has gone already; nil is whichever there is.
func (r *eventReader) endFlush(s *session, done chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.flushed != nil && (done == nil || s.flushed == done) {
		close(s.flushed)
		s.flushed = nil
	}
}

// Flush returns when every event that was emitted before the call has been handed to the sink of Events,
// those that were counted included.
func (b *Backend) Flush(ctx context.Context) error {
	r := &b.reader
	select {
	case r.flushing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.flushing }()
	s, done, err := r.beginFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		r.endFlush(s, done)
		return ctx.Err()
	}
}

func (r *eventReader) beginFlush() (*session, chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.session
	if s == nil || r.running == 0 {
		return nil, nil, ErrNoReader
	}
	// The record that is being handed on is neither waiting nor taken. Too much is made up for by an empty ring.
	waiting := uint64(s.ring.AvailableBytes())
	s.target.Store(s.taken.Load() + ringRecordMax + waiting)
	if err := s.ring.Flush(); err != nil {
		return nil, nil, fmt.Errorf("flush the event ring: %w", err)
	}
	s.flushed = make(chan struct{})
	return s, s.flushed, nil
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
	bpf.MusterCounterCOUNT_ARGUMENTS:     "arguments",
	bpf.MusterCounterCOUNT_CALL_MEMORY:   "call-memory",
}

// Losses implements enforce.EventSource. Reasons that never occurred are left out.
func (b *Backend) Losses() (map[string]uint64, error) {
	losses := map[string]uint64{}
	b.reader.mu.Lock()
	maps.Copy(losses, b.reader.losses)
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
