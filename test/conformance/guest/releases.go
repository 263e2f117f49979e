// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	gogit "github.com/go-git/go-git/v5"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
)

// Of the fleet that the scenarios make.
const (
	fleetName   = "conformance"
	channelName = "stable"
	signerName  = "runner"
)

// Releases publishes to a repository on the machine's own disk. Unlike `muster publish` it does not lint
// and has no limits: a release that must be refused has to reach the agent.
type Releases struct {
	URL       string // of the policy repository
	StatusURL string
	TrustYAML []byte

	key      *bundles.KeySigner
	channel  *git.Channel
	tip      bundles.Revision
	sequence int64
}

// NewReleases makes a signing key, a trust file and empty repositories below dir.
func NewReleases(ctx context.Context, dir string) (*Releases, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	r := &Releases{}
	if r.key, err = bundles.SignerFromKey(private); err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if err := r.makeTrust(); err != nil {
		return nil, err
	}
	for _, repository := range []struct {
		name string
		url  *string
	}{{"policy.git", &r.URL}, {"status.git", &r.StatusURL}} {
		path := filepath.Join(dir, repository.name)
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("repository: %w", err)
		}
		if _, err := gogit.PlainInit(path, true); err != nil {
			return nil, fmt.Errorf("repository %s: %w", path, err)
		}
		*repository.url = "file://" + path
	}
	if r.channel, err = git.OpenChannel(git.ChannelConfig{URL: r.URL, Channel: channelName}); err != nil {
		return nil, fmt.Errorf("channel: %w", err)
	}
	r.tip, err = r.channel.Refresh(ctx)
	return r, err
}

func (r *Releases) makeTrust() error {
	public, err := r.key.PublicPEM()
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	r.TrustYAML = fmt.Appendf(nil, "fleet: %s\nchannel: %s\nversion: 1\nepoch: 1\n"+
		"threshold: {audit: 1, enforce: 1, trust: 1}\nsigners:\n  - name: %s\n    key: |\n      %s\n",
		fleetName, channelName, signerName, strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n      "))
	return nil
}

// Publish appends a signed release of these files to the channel and returns its digest.
func (r *Releases) Publish(ctx context.Context, files map[string][]byte, now time.Time) (digest string, err error) {
	document, err := r.document(files, now)
	if err != nil {
		return "", fmt.Errorf("release: %w", err)
	}
	signature, err := r.key.Sign(ctx, document)
	if err != nil {
		return "", fmt.Errorf("release: %w", err)
	}
	all := map[string][]byte{bundles.ReleasePath: document, bundles.SignatureFile(signerName): signature}
	maps.Copy(all, files)
	message := fmt.Sprintf("Release %d\n", r.sequence+1)
	if r.tip, err = r.channel.Append(ctx, r.tip, all, message, now); err != nil {
		return "", fmt.Errorf("release: %w", err)
	}
	r.sequence++
	return bundles.DigestOf(document), nil
}

// document is release.json, canonical. It is written here and not by bundles.BuildRelease, which would keep
// the hosts' limits for them.
func (r *Releases) document(files map[string][]byte, now time.Time) ([]byte, error) {
	release := bundles.Release{
		Schema: bundles.ReleaseSchema, Name: fleetName, Channel: channelName, Epoch: 1, Sequence: r.sequence + 1,
		Issued: now.UTC().Truncate(time.Second),
		Source: bundles.ReleaseSource{Commit: strings.Repeat("0", 40), Repository: r.URL},
		// A scenario may replace its policies by fewer.
		AcknowledgeRemoval: true,
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		release.Files = append(release.Files, bundles.ReleaseFile{
			Path: name, Size: int64(len(files[name])), SHA256: fmt.Sprintf("%x", sha256.Sum256(files[name])),
		})
	}
	text, err := json.Marshal(release)
	if err != nil {
		return nil, err
	}
	return jsoncanonicalizer.Transform(text)
}
