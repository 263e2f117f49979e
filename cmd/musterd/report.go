// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/muster-fleet/muster/cmd/internal/sources"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/fleet/statusref"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
)

// reportTimeout bounds one push or one folding.
const reportTimeout = time.Minute

// collectMinAge and collectMaxHosts are REPORTS' bounds of "collect: auto".
const (
	collectMinAge   = time.Minute
	collectMaxHosts = 200
)

// localReporter is for hosts whose reports go nowhere: `muster status` shows them.
type localReporter struct{}

func (localReporter) Report(context.Context, reconciler.Mail) error { return nil }
func (localReporter) Flush(context.Context) error                   { return nil }
func (localReporter) Collect(context.Context) error                 { return nil }

// refReporter pushes reports to this host's own ref and helps to fold the fleet's.
type refReporter struct {
	cfg       config.Status
	key       *fleet.HostKey
	log       *slog.Logger
	spool     string
	publisher *statusref.Publisher
	collector *statusref.Collector
	// collectFor is what the collector was made for.
	collectFor collectFor
	hostID     string
}

type collectFor struct {
	trust string
	hosts *fleet.AllowedSigners
}

// newReporter makes the host's key at the first start.
func newReporter(cfg *config.Config, log *slog.Logger) (reconciler.Reporter, error) {
	key, err := fleet.LoadOrCreateHostKey(cfg.HostKey)
	if err != nil {
		return nil, err
	}
	log.Info("host key", "fingerprint", key.Fingerprint())
	if cfg.Status.URL == "" {
		return localReporter{}, nil
	}
	r := &refReporter{cfg: cfg.Status, key: key, log: log, spool: filepath.Join(cfg.StateDir, "report")}
	remote, err := r.remote()
	if err != nil {
		// Reports can wait on the host; enforcing cannot.
		log.Error("reports stay on this host", "error", err)
		return localReporter{}, nil
	}
	r.publisher = statusref.NewPublisher(statusref.PublisherConfig{Remote: remote, Dir: r.spool, Key: key})
	return r, nil
}

func (r *refReporter) remote() (statusref.Remote, error) {
	credentials := sources.Git(r.cfg.Credentials)
	auth, err := credentials.Auth(r.cfg.URL)
	if err != nil {
		return statusref.Remote{}, fmt.Errorf("status: %w", err)
	}
	ca, err := credentials.CABundle()
	if err != nil {
		return statusref.Remote{}, fmt.Errorf("status: %w", err)
	}
	return statusref.Remote{URL: r.cfg.URL, Auth: auth, CABundle: ca}, nil
}

// Spooled implements reconciler.Recaller.
func (r *refReporter) Spooled() (*fleet.Report, error) {
	return statusref.SpooledReport(r.spool, r.key.PublicKey())
}

// Sent implements reconciler.Recaller.
func (r *refReporter) Sent(ctx context.Context, host string) (*fleet.Report, error) {
	remote, err := r.remote()
	if err != nil {
		return nil, err
	}
	return statusref.OwnReport(ctx, remote, host, r.key.PublicKey())
}

var _ reconciler.Recaller = (*refReporter)(nil)

// Report signs and pushes.
func (r *refReporter) Report(ctx context.Context, mail reconciler.Mail) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	r.hostID = mail.Report.Host
	if err := r.prepare(mail); err != nil {
		r.log.Warn("this host cannot help to collect", "error", err)
	}
	return r.publisher.Report(ctx, mail.Report)
}

// Flush pushes what waits.
func (r *refReporter) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	return r.publisher.Flush(ctx)
}

// Collect folds the fleet's reports when nobody did lately.
func (r *refReporter) Collect(ctx context.Context) error {
	if r.collector == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	result, err := r.collector.Collect(ctx)
	if err != nil {
		return err
	}
	r.log.Debug("collect", "wrote", result.Wrote, "reason", result.Reason)
	return nil
}

// prepare makes the collector anew when trust or enrolment changed. A host whose rolls nobody would believe
// makes none.
func (r *refReporter) prepare(mail reconciler.Mail) error {
	want := collectFor{trust: mail.Trust.Digest(), hosts: mail.Hosts}
	if r.cfg.Collect != "auto" || r.collectFor == want {
		return nil
	}
	r.collectFor, r.collector = want, nil
	trusted, err := fleet.TrustedCollectors(mail.Trust, mail.Hosts)
	if err != nil {
		return err
	}
	name := cmp.Or(trusted.NameOf(r.key.PublicKey()), r.hostID)
	if err := trusted.Allows(name, r.key.PublicKey(), time.Now()); err != nil {
		r.log.Debug("this host does not collect", "reason", err)
		return nil
	}
	remote, err := r.remote()
	if err != nil {
		return err
	}
	r.collector, err = statusref.NewCollector(statusref.CollectorConfig{
		Remote: remote, Fleet: mail.Trust.Fleet, Name: name, Key: r.key, Hosts: mail.Hosts, Trusted: trusted,
		MinAge: collectMinAge, MaxHosts: collectMaxHosts,
	})
	return err
}
