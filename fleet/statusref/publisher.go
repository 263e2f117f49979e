// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/fleet"
)

// maxTries bounds the pushes of one report. Nobody else writes this host's ref, so a second try is rare.
const maxTries = 5

// hostLimits hold for the commits of hosts: a report and a signature, a tree and a commit.
func hostLimits(hosts int) limits {
	const each = fleet.MaxReport + 24<<10
	return limits{
		pack: int64(hosts) * each, object: fleet.MaxReport, total: int64(hosts) * each,
		count: uint32(hosts) * 4,
	}
}

// PublisherConfig is what a Publisher needs; all of it is required.
type PublisherConfig struct {
	Remote Remote
	// Dir holds the spool; it is made when missing.
	Dir string
	// Key is the host's own.
	Key ssh.Signer
	Now func() time.Time
}

// Publisher signs this host's reports and pushes them to this host's ref. It is for one goroutine.
type Publisher struct {
	cfg    PublisherConfig
	last   spool
	loaded bool
	lost   bool
	tries  int
}

// NewPublisher opens nothing yet; the first Report reads the spool.
func NewPublisher(cfg PublisherConfig) *Publisher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Publisher{cfg: cfg}
}

// Tries is how many pushes were tried so far, for metrics.
func (p *Publisher) Tries() int { return p.tries }

// Pending reports whether a signed report waits for the remote.
func (p *Publisher) Pending() bool { return p.last.Report != "" && p.last.Waiting }

// Report gives r the next sequence, signs it, keeps it on disk and pushes it. It changes r: Sequence, and the
// condition StateLost when the remote holds a newer report under this very key. After an error that is no
// refusal of the report itself, the newest report waits on disk for Flush or the next Report.
func (p *Publisher) Report(ctx context.Context, r *fleet.Report) error {
	if err := p.load(); err != nil {
		return err
	}
	var sequence int64
	if p.last.Report != "" {
		last, err := fleet.Decode([]byte(p.last.Report))
		if err != nil {
			return err
		}
		sequence = last.Sequence
	}
	if p.lost {
		addStateLost(r, p.cfg.Now(), "the spool could not be read")
	}
	if err := p.sign(r, sequence+1); err != nil {
		return err
	}
	p.lost = false
	return p.push(ctx, r)
}

// Flush pushes the report that waits, if one does.
func (p *Publisher) Flush(ctx context.Context) error {
	if err := p.load(); err != nil {
		return err
	}
	if !p.Pending() {
		return nil
	}
	r, err := fleet.Decode([]byte(p.last.Report))
	if err != nil {
		return err
	}
	return p.push(ctx, &r)
}

func (p *Publisher) load() (err error) {
	if p.loaded {
		return nil
	}
	if p.last, p.lost, err = loadSpool(p.cfg.Dir); err != nil {
		return err
	}
	p.loaded = true
	return nil
}

// sign makes the spool's content; the remote has not got it yet, but what it has is remembered. A full disk keeps no
// report from the fleet, which else would take the host for lost: the report says that it is not on disk, and a sequence
// that is forgotten that way is found again on the remote (catchUp).
func (p *Publisher) sign(r *fleet.Report, sequence int64) error {
	r.Sequence = sequence
	next, err := p.signed(*r)
	if err != nil {
		return err
	}
	if unsaved := next.save(p.cfg.Dir); unsaved != nil {
		addCondition(r, fleet.Condition{Type: "Trouble", Since: p.cfg.Now().UTC(), Error: "spool", Message: unsaved.Error()})
		if next, err = p.signed(*r); err != nil {
			return err
		}
	}
	p.last = next
	return nil
}

func (p *Publisher) signed(r fleet.Report) (spool, error) {
	b, err := fleet.Encode(r)
	if err != nil {
		return spool{}, err
	}
	sig, err := fleet.Sign(p.cfg.Key, fleet.NamespaceReport, b)
	if err != nil {
		return spool{}, err
	}
	return spool{Report: string(b), Signature: string(sig), Waiting: true, Remote: p.last.Remote}, nil
}

// push sends the spool's report, looking again after a lost race.
func (p *Publisher) push(ctx context.Context, r *fleet.Report) error {
	var err error
	for try := range maxTries {
		if try > 0 {
			if err := backOff(ctx, try); err != nil {
				return err
			}
		}
		p.tries++
		if err = p.tryPush(ctx, r); err == nil {
			return nil
		}
		if Classify(err) != FaultRace {
			return err
		}
	}
	return fmt.Errorf("after %d tries: %w", maxTries, err)
}

func (p *Publisher) tryPush(ctx context.Context, r *fleet.Report) error {
	conn, err := p.cfg.Remote.openPush(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	name := p.cfg.Remote.HostRef(r.Host)
	old := conn.advert.refs[name]
	if err := p.catchUp(ctx, r, old); err != nil {
		return err
	}
	b, commit, err := p.build(r)
	if err != nil {
		return err
	}
	if commit != old {
		cmd := &packp.Command{Name: name, Old: old, New: commit}
		answers, err := conn.send(ctx, []*packp.Command{cmd}, b.store, b.made)
		if err != nil {
			return err
		}
		if err := answers[name]; err != nil {
			return err
		}
	}
	p.last.Waiting, p.last.Remote = false, commit.String()
	// It has arrived, whatever becomes of this: what is not marked as sent is sent again after a restart.
	_ = p.last.save(p.cfg.Dir)
	return nil
}

// catchUp looks at a commit on our ref that is not the one we sent last. When our own key signed a report
// there that is not older than ours, this host was set back (a restored snapshot) or its key is in use
// twice: the sequence goes on from there and the report says so.
func (p *Publisher) catchUp(ctx context.Context, r *fleet.Report, old plumbing.Hash) error {
	if old.IsZero() || old.String() == p.last.Remote {
		return nil
	}
	remote, digestSame, err := p.readOwn(ctx, r, old)
	if err != nil {
		return err
	}
	if remote == nil || digestSame || remote.Sequence < r.Sequence {
		return nil
	}
	addStateLost(r, p.cfg.Now(), fmt.Sprintf("the remote holds report %d of this host, which this host does not remember", remote.Sequence))
	return p.sign(r, remote.Sequence+1)
}

// readOwn answers the report at commit if this host's key signed it, else nil: what others put there is
// overwritten, and the collector's business.
func (p *Publisher) readOwn(ctx context.Context, r *fleet.Report, commit plumbing.Hash) (*fleet.Report, bool, error) {
	a, err := p.cfg.Remote.list(ctx)
	if err != nil {
		return nil, false, err
	}
	got, err := ownAt(ctx, p.cfg.Remote, a, commit, r.Host, p.cfg.Key.PublicKey())
	if err != nil || got == nil {
		return nil, false, err
	}
	b, err := fleet.Encode(*got)
	return got, err == nil && string(b) == p.last.Report, err
}

// build makes the parentless commit. It depends on the report only, so a repeated push makes the same commit.
func (p *Publisher) build(r *fleet.Report) (*builder, plumbing.Hash, error) {
	b := newBuilder()
	report, err := b.blob([]byte(p.last.Report))
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	sig, err := b.blob([]byte(p.last.Signature))
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	tree, err := b.tree([]object.TreeEntry{file(reportFile, report), file(signatureFile, sig)})
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	commit, err := b.commit(tree, r.Host, fmt.Sprintf("Report %d: %s\n", r.Sequence, r.State), r.Time)
	return b, commit, err
}

func addStateLost(r *fleet.Report, now time.Time, message string) {
	addCondition(r, fleet.Condition{Type: fleet.ConditionStateLost, Since: now, Message: message})
}

// addCondition adds what the report does not say already.
func addCondition(r *fleet.Report, add fleet.Condition) {
	for _, c := range r.Conditions {
		if c.Type == add.Type && c.Error == add.Error {
			return
		}
	}
	r.Conditions = append(r.Conditions, add)
}

// sameKey compares the keys themselves, whatever certificate is around them.
func sameKey(a, b ssh.PublicKey) bool {
	plain := func(k ssh.PublicKey) []byte {
		if c, ok := k.(*ssh.Certificate); ok {
			k = c.Key
		}
		return k.Marshal()
	}
	return bytes.Equal(plain(a), plain(b))
}

// backOff waits a random time below 50 ms doubled with each try, or until ctx ends.
func backOff(ctx context.Context, try int) error {
	const base = 50 * time.Millisecond
	t := time.NewTimer(rand.N(base << min(try, 6)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
