// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
)

// maxCounters bounds the policy and action pairs that are counted apart; a release with more policies than
// that is counted under "other".
const maxCounters = 2000

// followerQueue is how many lines a follower may lag behind.
const followerQueue = 4096

// The reasons of losses on this side of the kernel.
const (
	LossQueue = "queue-full"
	LossWrite = "write-failed"
	LossSlow  = "follower-too-slow"
)

// Pipe carries events from one backend to a sink and to followers. Its queue is the only thing between the
// kernel's reader and a slow disk.
type Pipe struct {
	sink     io.Writer // nil: nobody wants a file
	log      *slog.Logger
	queue    chan item
	identity atomic.Pointer[Identity]

	// Of Run alone: lines that are written together, and how many operations each tells of.
	lines   []byte
	weights []uint64
	torn    bool // the sink's last byte ended no line

	audited map[string]auditedPolicy // of the caller of Audited alone

	// One lock for what Push, Run and readers share; none of them holds it while writing.
	mu        sync.Mutex
	counts    map[counter]uint64
	losses    map[string]uint64
	followers map[chan []byte]struct{}
}

type counter struct{ policy, action string }

// writeSize is how much is written at once while events come faster than they are written.
const writeSize = 64 << 10

// item is an event, a record, or a barrier.
type item struct {
	event   enforce.Event
	record  *Record // instead of an event: of the agent itself
	barrier chan struct{}
}

// NewPipe returns a pipe with room for size events.
func NewPipe(sink io.Writer, size int, log *slog.Logger) *Pipe {
	p := &Pipe{
		sink: sink, log: log, queue: make(chan item, size),
		audited: map[string]auditedPolicy{}, counts: map[counter]uint64{}, losses: map[string]uint64{}, followers: map[chan []byte]struct{}{},
	}
	p.identity.Store(&Identity{})
	return p
}

// SetIdentity changes what records say of this host from now on.
func (p *Pipe) SetIdentity(id Identity) { p.identity.Store(&id) }

// Push takes one event and never waits.
func (p *Pipe) Push(ev enforce.Event) {
	select {
	case p.queue <- item{event: ev}:
	default:
		// Counted as an event of its policy, too: a flood must not make the counters lie.
		for _, r := range Translate(ev, *p.identity.Load()) {
			p.count(r)
		}
		p.lose(LossQueue, max(1, ev.Count))
	}
}

// Run writes until ctx ends, and then what is still queued.
func (p *Pipe) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			p.drain()
			return
		case it := <-p.queue:
			p.handle(it)
			if len(p.queue) == 0 {
				p.write()
			}
		}
	}
}

func (p *Pipe) drain() {
	for {
		select {
		case it := <-p.queue:
			p.handle(it)
		default:
			p.write()
			p.closeFollowers()
			return
		}
	}
}

// Barrier returns when everything pushed before the call is written.
func (p *Pipe) Barrier(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case p.queue <- item{barrier: done}:
	case <-ctx.Done():
		return fmt.Errorf("event queue: %w", ctx.Err())
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("event queue: %w", ctx.Err())
	}
}

// Follow returns a channel of JSON lines; stop must be called once.
func (p *Pipe) Follow() (<-chan []byte, func()) {
	ch := make(chan []byte, followerQueue)
	p.mu.Lock()
	p.followers[ch] = struct{}{}
	p.mu.Unlock()
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.drop(ch)
	}
}

// Counts returns the counters, sorted.
func (p *Pipe) Counts() []fleet.EventCount {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]fleet.EventCount, 0, len(p.counts))
	for key, n := range p.counts {
		out = append(out, fleet.EventCount{Policy: key.policy, Action: key.action, Count: n})
	}
	slices.SortFunc(out, func(a, b fleet.EventCount) int {
		return strings.Compare(a.Policy+"\x00"+a.Action, b.Policy+"\x00"+b.Action)
	})
	return out
}

// Losses returns what was lost on this side of the kernel, by reason.
func (p *Pipe) Losses() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]uint64, len(p.losses))
	maps.Copy(out, p.losses)
	return out
}

func (p *Pipe) handle(it item) {
	if it.barrier != nil {
		p.write()
		close(it.barrier)
		return
	}
	id := *p.identity.Load()
	if it.record != nil {
		it.record.ClusterName, it.record.HostName = id.Fleet, id.Hostname
		p.line(it.record)
	} else {
		for _, r := range Translate(it.event, id) {
			p.count(r)
			p.line(&r)
		}
	}
	if len(p.lines) >= writeSize || p.sink == nil {
		p.write()
	}
}

// line adds a record to the lines that wait.
func (p *Pipe) line(r *Record) {
	begin := len(p.lines)
	p.lines = append(appendRecord(p.lines, r), '\n')
	p.publish(p.lines[begin : len(p.lines)-1])
	p.weights = append(p.weights, r.Count)
}

// write writes the lines that wait. Of a write that was cut short the whole lines count as written.
func (p *Pipe) write() {
	if p.sink != nil && len(p.lines) > 0 {
		p.writeLines()
	}
	p.lines, p.weights = p.lines[:0], p.weights[:0]
}

// writeLines hands the lines to the sink. After a write that ended within a line, the next one begins a new line:
// half an event must not spoil the first whole one after it.
func (p *Pipe) writeLines() {
	text := p.lines
	if p.torn {
		text = append([]byte("\n"), text...)
	}
	n, err := p.sink.Write(text)
	n = min(n, len(text))
	if n > 0 {
		p.torn = text[n-1] != '\n'
	}
	if err == nil {
		return
	}
	written := bytes.Count(text[len(text)-len(p.lines):max(n, len(text)-len(p.lines))], []byte("\n"))
	for _, weight := range p.weights[written:] {
		p.lose(LossWrite, weight)
	}
	p.log.Debug("events not written", "error", err)
}

// publish hands line to every follower; one that has no room left is cut off rather than silently skipped.
func (p *Pipe) publish(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ch := range p.followers {
		select {
		case ch <- slices.Clone(line):
		default:
			p.losses[LossSlow]++ // a follower, and no event: the file has it
			p.drop(ch)
		}
	}
}

// drop forgets a follower; the lock is held.
func (p *Pipe) drop(ch chan []byte) {
	if _, there := p.followers[ch]; there {
		delete(p.followers, ch)
		close(ch)
	}
}

func (p *Pipe) closeFollowers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ch := range p.followers {
		p.drop(ch)
	}
}

func (p *Pipe) count(r Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := counter{cmp.Or(r.PolicyName, "visibility"), cmp.Or(r.Action, "None")}
	if _, known := p.counts[key]; !known && len(p.counts) >= maxCounters {
		key.policy = "other"
	}
	p.counts[key] += r.Count
}

func (p *Pipe) lose(reason string, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.losses[reason] += n
}
