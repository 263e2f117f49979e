// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/fleet"
)

// SpooledReport answers the newest report that this host signed, from the spool in dir; nil when there is none.
func SpooledReport(dir string, key ssh.PublicKey) (*fleet.Report, error) {
	s, lost, err := loadSpool(dir)
	switch {
	case err != nil:
		return nil, err
	case lost:
		return nil, errors.New("report spool: it cannot be read")
	case s.Report == "":
		return nil, nil
	}
	return signedBy(key, []byte(s.Report), []byte(s.Signature), "")
}

// OwnReport answers what the remote holds of a host, when its own key signed it; nil when it holds nothing of the kind.
// What others put there is the collector's business.
func OwnReport(ctx context.Context, remote Remote, host string, key ssh.PublicKey) (*fleet.Report, error) {
	a, err := remote.list(ctx)
	if err != nil {
		return nil, err
	}
	commit, there := a.refs[remote.HostRef(host)]
	if !there {
		return nil, nil
	}
	return ownAt(ctx, remote, a, commit, host, key)
}

func ownAt(ctx context.Context, remote Remote, a advert, commit plumbing.Hash, host string, key ssh.PublicKey) (*fleet.Report, error) {
	store := memory.NewStorage()
	err := remote.fetch(ctx, a, []plumbing.Hash{commit}, hostLimits(1), store)
	if errors.Is(err, ErrLimits) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := readHostCommit(store, commit, host)
	if err != nil {
		return nil, nil //nolint:nilerr // no report of ours
	}
	r, err := signedBy(key, f.Report, f.Signature, host)
	if err != nil {
		return nil, nil //nolint:nilerr // no report of ours
	}
	return r, nil
}

// signedBy reads a report that key signed, about this host unless host is "".
func signedBy(key ssh.PublicKey, report, signature []byte, host string) (*fleet.Report, error) {
	by, err := fleet.Verify(signature, fleet.NamespaceReport, report)
	if err != nil {
		return nil, err
	}
	r, err := fleet.Decode(report)
	switch {
	case err != nil:
		return nil, err
	case !sameKey(by, key):
		return nil, errors.New("the report is signed with another key")
	case host != "" && r.Host != host:
		return nil, fmt.Errorf("the report is of host %s", r.Host)
	}
	return &r, nil
}
