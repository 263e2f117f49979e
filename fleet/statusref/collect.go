// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/fleet"
)

// CollectorConfig is what a Collector needs; what has a default says so.
type CollectorConfig struct {
	Remote Remote
	Fleet  string
	// Name and Key sign the roll: a collector of the trust file, or an enrolled host's id and key.
	Name string
	Key  ssh.Signer
	// Hosts is who is enrolled; nil means that everybody is shown apart.
	Hosts *fleet.AllowedSigners
	// Trusted is whose previous roll is believed.
	Trusted fleet.Collectors
	Now     func() time.Time
	// MinAge leaves a younger status branch alone; 0 always folds. "collect: auto" says a minute.
	MinAge time.Duration
	// MaxHosts makes Collect leave larger fleets to a collector of their own; 0 has no limit.
	MaxHosts int
	// LostAfter (default 1 h) and RemoveAfter (default 7 days) count from a host's last new report.
	LostAfter, RemoveAfter time.Duration
	// RefreshAfter (default 10 min) is when an unchanged roll is written again, so that readers see it lives.
	RefreshAfter time.Duration
	// RerootAfter (default 30 days) is when the branch starts anew without history.
	RerootAfter time.Duration
}

// defaults fills what was left out.
func (c *CollectorConfig) defaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.LostAfter, time.Hour},
		{&c.RemoveAfter, 7 * 24 * time.Hour},
		{&c.RefreshAfter, 10 * time.Minute},
		{&c.RerootAfter, 30 * 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (c *CollectorConfig) validate() error {
	if c.Key == nil || c.Name == "" {
		return errors.New("a collector needs a name and a key")
	}
	if c.RemoveAfter < c.LostAfter {
		return fmt.Errorf("hosts would be removed (%s) before they are lost (%s)", c.RemoveAfter, c.LostAfter)
	}
	return nil
}

// Why a Collect wrote nothing.
const (
	ReasonFresh     = "fresh"     // the status branch is younger than MinAge
	ReasonUnchanged = "unchanged" // nothing new, and the roll is recent
	ReasonLost      = "lost"      // another collector was faster
	ReasonTooMany   = "too-many-hosts"
	ReasonNoReports = "no-reports"
)

// Result is what a Collect did.
type Result struct {
	Wrote  bool
	Reason string
	Commit plumbing.Hash
	Roll   fleet.Roll
	// Skipped hosts changed their ref faster than it could be read; their kept reports count this time.
	Skipped int
	// PreviousRefused says why the roll that was there was not believed.
	PreviousRefused string
}

// Collector folds the refs of hosts into the status branch. It is for one goroutine.
type Collector struct {
	cfg CollectorConfig
	// tip and tipTime are the newest status commit seen and its roll's time: a poll that finds the same tip,
	// still fresh, costs one request.
	tip     plumbing.Hash
	tipTime time.Time
}

// NewCollector checks the configuration and opens nothing.
func NewCollector(cfg CollectorConfig) (*Collector, error) {
	cfg.defaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Collector{cfg: cfg}, nil
}

// round is one Collect.
type round struct {
	cfg    CollectorConfig
	now    time.Time
	advert advert
	tip    plumbing.Hash
	status *status
	orphan bool                     // the tip is nothing to build upon
	refs   map[string]plumbing.Hash // host id -> commit
	got    []found
	result Result
}

// Collect folds once. Who loses the compare-and-swap leaves it to the winner.
func (c *Collector) Collect(ctx context.Context) (Result, error) {
	a, err := c.cfg.Remote.list(ctx)
	if err != nil {
		return Result{}, err
	}
	r := &round{cfg: c.cfg, now: c.cfg.Now(), advert: a, tip: a.refs[StatusBranch], refs: map[string]plumbing.Hash{}}
	for name, hash := range a.refs {
		if id := c.cfg.Remote.hostOfRef(name); id != "" {
			r.refs[id] = hash
		}
	}
	if reason := c.idle(r); reason != "" {
		return Result{Reason: reason}, nil
	}
	if done, err := r.readStatus(ctx); done || err != nil {
		return r.result, err
	}
	previous, err := r.previous()
	if err != nil {
		r.result.PreviousRefused = err.Error()
	}
	if previous != nil {
		c.tip, c.tipTime = r.tip, previous.Time
	}
	if reason := c.idle(r); reason != "" {
		r.result.Reason = reason
		return r.result, nil
	}
	if err := r.fetchHosts(ctx); err != nil {
		return Result{}, err
	}
	return r.write(ctx, previous)
}

// readStatus reads what is on the branch; done says that somebody else is writing it right now. Something that
// is no status is written over, and does not become an ancestor.
func (r *round) readStatus(ctx context.Context) (done bool, err error) {
	r.status, err = readStatus(ctx, r.cfg.Remote, r.advert, r.tip)
	switch {
	case errors.Is(err, errUnusable):
		r.status, r.orphan = &status{store: memory.NewStorage()}, true
		r.result.PreviousRefused = err.Error()
		return false, nil
	case Classify(err) == FaultRace:
		r.result.Reason = ReasonLost
		return true, nil
	}
	return false, err
}

// idle answers why there is nothing to do, as far as the advertisement tells.
func (c *Collector) idle(r *round) string {
	switch {
	case len(r.refs) == 0 && r.tip.IsZero():
		return ReasonNoReports
	case c.cfg.MaxHosts > 0 && len(r.refs) > c.cfg.MaxHosts:
		return ReasonTooMany
	case !r.tip.IsZero() && r.tip == c.tip && younger(c.tipTime, c.cfg.MinAge, r.now):
		return ReasonFresh
	}
	return ""
}

// clockLeeway is how far the clocks of two honest collectors may be apart.
const clockLeeway = 5 * time.Minute

// younger is true for a roll that is not as old as age. One from the future is no reason to wait for it: any
// host that may collect could otherwise stop the fleet's table for as long as it likes.
func younger(roll time.Time, age time.Duration, now time.Time) bool {
	return now.Sub(roll) < age && roll.Sub(now) <= clockLeeway
}

// previous is the roll of the status branch, when whom we trust made it.
func (r *round) previous() (*fleet.Roll, error) {
	if r.status.roll == nil {
		return nil, nil
	}
	roll, err := fleet.VerifyRoll(r.status.roll, r.status.rollSig, r.cfg.Trusted, r.now)
	if err != nil {
		return nil, err
	}
	return &roll, nil
}

// fold joins what was fetched with what the branch keeps.
func (r *round) fold(previous *fleet.Roll) (fleet.Folded, []found) {
	all := append([]found{}, r.got...)
	same := make(map[plumbing.Hash]plumbing.Hash, len(all))
	for _, f := range all {
		same[f.report] = f.signature
	}
	for _, f := range r.status.kept {
		if same[f.report] != f.signature { // most refs did not change: verify them once
			all = append(all, f)
		}
	}
	in := fleet.FoldInput{
		Fleet: r.cfg.Fleet, Collector: r.cfg.Name, Hosts: r.cfg.Hosts, Previous: previous, Now: r.now,
		LostAfter: r.cfg.LostAfter, RemoveAfter: r.cfg.RemoveAfter,
	}
	for _, f := range all {
		in.Reports = append(in.Reports, f.SignedReport)
	}
	return fleet.Fold(in), all
}

func (r *round) write(ctx context.Context, previous *fleet.Roll) (Result, error) {
	folded, all := r.fold(previous)
	reroot := r.setHistory(&folded.Roll, previous)
	r.result.Roll = folded.Roll
	if previous != nil && len(folded.Removed) == 0 && r.unchanged(folded.Roll, *previous) {
		r.result.Reason = ReasonUnchanged
		return r.result, nil
	}
	result, err := r.push(ctx, folded, all, reroot)
	if reroot && Classify(err) == FaultRefused {
		// The server lets no branch start anew; the history then goes on growing.
		folded.Roll.History = previous.History
		r.result.Roll = folded.Roll
		return r.push(ctx, folded, all, false)
	}
	return result, err
}

// setHistory decides whether the branch starts anew; the old tip's hash is kept in what the collector signs.
func (r *round) setHistory(roll *fleet.Roll, previous *fleet.Roll) (reroot bool) {
	roll.History = fleet.History{RootedAt: r.now.UTC().Truncate(time.Second)}
	switch {
	case previous == nil:
		return false
	case previous.History.RootedAt.After(r.now.Add(clockLeeway)): // by a clock that was ahead: it would never come
		roll.History.PreviousTip = previous.History.PreviousTip
		return false
	case roll.Leapt != nil, r.now.Sub(previous.History.RootedAt) <= r.cfg.RerootAfter:
		roll.History = previous.History
		return false
	}
	roll.History.PreviousTip = r.tip.String()
	return true
}

// unchanged compares rolls but for who folded them and when.
func (r *round) unchanged(now, before fleet.Roll) bool {
	if !younger(before.Time, r.cfg.RefreshAfter, r.now) {
		return false
	}
	now.Time, now.Collector = before.Time, before.Collector
	a, errA := fleet.EncodeRoll(now)
	b, errB := fleet.EncodeRoll(before)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func (r *round) push(ctx context.Context, folded fleet.Folded, all []found, reroot bool) (Result, error) {
	conn, err := r.cfg.Remote.openPush(ctx)
	if err != nil {
		return Result{}, err
	}
	defer conn.close()
	if conn.advert.refs[StatusBranch] != r.tip {
		r.result.Reason = ReasonLost
		return r.result, nil
	}
	parents := []plumbing.Hash{r.tip}
	if r.tip.IsZero() || r.orphan || reroot {
		parents = nil
	}
	b := newBuilder()
	commit, err := r.build(b, folded, all, parents)
	if err != nil {
		return Result{}, err
	}
	cmds := []*packp.Command{{Name: StatusBranch, Old: r.tip, New: commit}}
	for _, host := range folded.Removed {
		if ref := r.cfg.Remote.HostRef(host); !r.refs[host].IsZero() {
			cmds = append(cmds, &packp.Command{Name: ref, Old: r.refs[host]})
		}
	}
	answers, err := conn.send(ctx, cmds, b.store, r.fresh(b))
	if err == nil {
		err = answers[StatusBranch] // a ref that could not be deleted is tried again next time
	}
	switch {
	case Classify(err) == FaultRace:
		r.result.Reason = ReasonLost
	case err != nil:
		return Result{}, err
	default:
		r.result.Wrote, r.result.Commit = true, commit
	}
	return r.result, nil
}

// fresh leaves out what the server has already: the trees of unchanged shards. The reports themselves are
// never built here; they lie on the server since their hosts pushed them.
func (r *round) fresh(b *builder) []plumbing.Hash {
	var list []plumbing.Hash
	for _, h := range b.made {
		if r.status.store.HasEncodedObject(h) != nil {
			list = append(list, h)
		}
	}
	return list
}

// build makes the commit of the status branch.
func (r *round) build(b *builder, folded fleet.Folded, all []found, parents []plumbing.Hash) (plumbing.Hash, error) {
	root, err := shardTrees(b, folded, all)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	rollBytes, err := fleet.EncodeRoll(folded.Roll)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	sig, err := fleet.Sign(r.cfg.Key, fleet.NamespaceRoll, rollBytes)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	for name, content := range map[string][]byte{
		rollFile: rollBytes, rollFile + ".sig": sig, readmeFile: fleet.RenderMarkdown(folded.Roll),
	} {
		h, err := b.blob(content)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		root = append(root, file(name, h))
	}
	tree, err := b.tree(root)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	message := fmt.Sprintf("Fold the reports of %d hosts\n", folded.Roll.Counts.Hosts)
	if len(parents) == 0 && folded.Roll.History.PreviousTip != "" {
		message += "\nPrevious-Tip: " + folded.Roll.History.PreviousTip + "\n"
	}
	return b.commit(tree, r.cfg.Name, message, r.now, parents...)
}

// shardTrees makes hosts/<2 hex>/<id>.json and .json.sig of every accepted report.
func shardTrees(b *builder, folded fleet.Folded, all []found) ([]object.TreeEntry, error) {
	shards := map[string][]object.TreeEntry{}
	for host, index := range folded.Accepted {
		f, shard := all[index], fleet.Shard(host)
		shards[shard] = append(shards[shard], file(host+".json", f.report), file(host+".json.sig", f.signature))
	}
	var dirs []object.TreeEntry
	for shard, entries := range shards {
		h, err := b.tree(entries)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir(shard, h))
	}
	if len(dirs) == 0 {
		return nil, nil
	}
	h, err := b.tree(dirs)
	if err != nil {
		return nil, err
	}
	return []object.TreeEntry{dir(hostsDir, h)}, nil
}
