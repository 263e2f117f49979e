// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"time"
)

// Channel is where releases are appended: a branch, seen from a publisher.
type Channel interface {
	// Refresh fetches the channel and answers its tip; "" when it does not exist yet.
	Refresh(ctx context.Context) (Revision, error)
	// Release answers one revision's files and its parent ("" at the beginning).
	Release(rev Revision) (*Raw, Revision, error)
	// Append pushes files as the successor of parent, or answers ErrLostRace when somebody was faster.
	Append(ctx context.Context, parent Revision, files map[string][]byte, message string, when time.Time) (Revision, error)
}

// ErrLostRace says that the channel moved while we built on it: refresh and build again.
var ErrLostRace = errors.New("somebody else published at the same time")

// PublishOptions are the choices of one publication.
type PublishOptions struct {
	Trust      *Trust
	TrustBytes []byte // published beside the release, for muster join
	// TrustSignatures are the bundles over TrustBytes by name of their file, when it succeeds another trust file.
	TrustSignatures map[string][]byte
	// Attestations are statements about the content, in bundles.
	Attestations [][]byte
	Content      Content
	// Check looks at what of the content is no policy and makes hosts refuse a release; nil looks at nothing.
	Check func(content fs.FS) error
	Keys  []*KeySigner
	// External signs too, or instead; nil does not.
	External SignFunc
	// RollbackTo publishes the files of that earlier sequence again, as a new release.
	RollbackTo         int64
	AcknowledgeRemoval bool
	// Sequence overrides the next number; it must be above the last.
	Sequence int64
	// Fresh says that the release is current, when there is a key for it.
	Fresh FreshOptions
	Now   time.Time
	// Wait is called between attempts; nil waits a short random time.
	Wait func(ctx context.Context, attempt int) error
}

// FreshOptions is how to write fresh.json; a nil Key writes none.
type FreshOptions struct {
	Key   *KeySigner
	Valid time.Duration
	// Only renews fresh.json of the newest release and publishes nothing else.
	Only bool
}

// Published is what happened.
type Published struct {
	Changed  bool     `json:"changed"`
	Revision Revision `json:"revision"`
	Sequence int64    `json:"sequence"`
	Epoch    int64    `json:"epoch"`
	Digest   string   `json:"digest"`
	Signers  []string `json:"signers"`
	Files    int      `json:"files"`
	// Over says what was wrong with the channel's tip when the release had to be built over it.
	Over string `json:"over,omitempty"`
	// TrustChanged says that the trust file differs from the published one of the same version: hosts that
	// joined keep the file that they pinned.
	TrustChanged bool `json:"trustChanged,omitempty"`
	Attempts     int  `json:"attempts"`
}

const publishAttempts = 12

// Publish appends a release to the channel. It is idempotent: when the newest release has these files already,
// nothing changes. The loser of a race builds again on what the winner left.
func Publish(ctx context.Context, ch Channel, o PublishOptions) (*Published, error) {
	by, err := newSigners(o.Trust, o.Keys, o.External)
	if err != nil {
		return nil, err
	}
	if err := o.freshAllowed(); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		p, err := publishOnce(ctx, ch, o, by)
		if p != nil {
			p.Attempts = attempt
		}
		if !errors.Is(err, ErrLostRace) || attempt == publishAttempts {
			return p, err
		}
		if err := o.wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

func (o *PublishOptions) wait(ctx context.Context, attempt int) error {
	if o.Wait != nil {
		return o.Wait(ctx, attempt)
	}
	t := time.NewTimer(rand.N(50 * time.Millisecond << min(attempt, 6)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (o *PublishOptions) freshAllowed() error {
	if o.Fresh.Key == nil {
		if o.Fresh.Only {
			return refuse(ErrPublishBlocked, "renewing fresh.json needs a freshness key")
		}
		return nil
	}
	if o.Trust.Freshness == nil {
		return refuse(ErrPublishBlocked, "the trust file names no freshness signers")
	}
	for i := range o.Trust.Freshness.Signers {
		if o.Trust.Freshness.Signers[i].id == o.Fresh.Key.id {
			return nil
		}
	}
	return refuse(ErrPublishBlocked, "the freshness key is not one of the trust file's freshness signers")
}

// signerNames answers the trust's name of each key. A key that no host trusts is refused here already.
func signerNames(t *Trust, keys []*KeySigner) (map[string]*KeySigner, error) {
	out := map[string]*KeySigner{}
	for _, k := range keys {
		name := ""
		for i := range t.Signers {
			if t.Signers[i].id == k.id {
				name = t.Signers[i].Name
			}
		}
		switch {
		case name == "":
			return nil, refuse(ErrPublishBlocked, "the key %s… is not one of the trust file's signers", k.id[:12]).
				withHint("add its public key to trust.yaml, commit, and let the hosts join again with the new trust")
		case t.RevokedKey(k.id):
			return nil, refuse(ErrRevoked, "the key of %s is revoked", name)
		}
		out[name] = k
	}
	return out, nil
}

func publishOnce(ctx context.Context, ch Channel, o PublishOptions, by *signers) (*Published, error) {
	tip, err := ch.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	h, err := o.history(ctx, ch, tip)
	if err != nil {
		return nil, err
	}
	if o.Fresh.Only {
		return renewFresh(ctx, ch, h, o)
	}
	if by.none() {
		return nil, refuse(ErrPublishBlocked, "there is no key to sign with").withHint("give --key or --sign-command, or make one with muster keys new")
	}
	content, err := o.content(h)
	if err != nil {
		return nil, err
	}
	if err := checkFileList(fileList(content.Files)); err != nil {
		return nil, err
	}
	if err := o.lint(memFS(content.Files)); err != nil {
		return nil, err
	}
	if p := h.unchanged(content, o); p != nil {
		return addAttestations(ctx, ch, h, o, p)
	}
	sequence, err := h.next(o.Sequence)
	if err != nil {
		return nil, err
	}
	doc, err := BuildRelease(o.Trust, content, sequence, o.AcknowledgeRemoval)
	if err != nil {
		return nil, err
	}
	signatures, err := by.sign(ctx, doc, nil)
	if err != nil {
		return nil, err
	}
	files, err := assemble(ctx, doc, sequence, content, signatures, h.before.files, o)
	if err != nil {
		return nil, err
	}
	if err := rehearse(files, o); err != nil {
		return nil, err
	}
	message := fmt.Sprintf("Release %d of %s/%s\n\nFrom commit %s.\n\n%s%s\n", sequence, o.Trust.Fleet, o.Trust.Channel,
		content.Commit, ReleaseTrailer, DigestOf(doc))
	rev, err := ch.Append(ctx, tip, files, message, o.Now)
	if err != nil {
		return nil, err
	}
	return &Published{
		Changed: true, Revision: rev, Sequence: sequence, Epoch: o.Trust.Epoch, Digest: DigestOf(doc),
		Signers: sortedNames(signatures), Files: len(content.Files), Over: h.tipProblem, TrustChanged: h.trustChanged(o),
	}, remember(ch, rev, Mark{Epoch: o.Trust.Epoch, Sequence: sequence, Digest: DigestOf(doc)})
}

// history reads what the channel has, and whether its hosts could follow the trust file.
func (o *PublishOptions) history(ctx context.Context, ch Channel, tip Revision) (*history, error) {
	depth := historyDepth
	if o.RollbackTo > 0 {
		depth = deepHistory
	}
	link := o.link()
	h, err := readHistory(ctx, ch, tip, o.Trust, &link, o.Now, depth)
	if err != nil || o.Fresh.Only {
		return h, err
	}
	return h, h.checkLink(o)
}

// content answers what to publish: the commit's files, or those of an earlier release.
func (o *PublishOptions) content(h *history) (Content, error) {
	if o.RollbackTo == 0 {
		return o.Content, nil
	}
	for _, v := range h.verified {
		if v.release.Sequence == o.RollbackTo {
			files, err := v.files.all()
			return Content{
				Files: files, Commit: v.release.Source.Commit, Repository: v.release.Source.Repository,
				Issued: v.release.Issued,
			}, err
		}
	}
	return Content{}, refuse(ErrPublishBlocked, "the channel has no release %d that the trust accepts", o.RollbackTo)
}

// assemble makes the tree of the channel's next commit.
func assemble(ctx context.Context, doc []byte, sequence int64, c Content, signatures map[string][]byte,
	earlierTrust map[string][]byte, o PublishOptions,
) (map[string][]byte, error) {
	files := map[string][]byte{}
	maps.Copy(files, c.Files)
	maps.Copy(files, earlierTrust)
	files[ReleasePath] = doc
	for _, data := range o.Attestations {
		files[AttestationFile(data)] = data
	}
	for name, sig := range signatures {
		files[SignatureFile(name)] = sig
	}
	if len(o.TrustBytes) > 0 {
		o.link().addTo(files, o.Trust.Version)
	}
	if o.Fresh.Key != nil {
		if err := o.Fresh.write(ctx, files, doc, sequence, o.Now); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// SignatureFile is where a signer's bundle lies in a release.
func SignatureFile(signer string) string { return SignaturesDir + "/" + signer + signatureExt }

// TrustFile is where a version of the trust file lies in a release.
func TrustFile(version int64) string { return fmt.Sprintf("%s/%d.yaml", TrustDir, version) }

func (f *FreshOptions) write(ctx context.Context, files map[string][]byte, doc []byte, sequence int64, now time.Time) error {
	fresh, err := BuildFresh(doc, sequence, now, f.Valid)
	if err != nil {
		return err
	}
	sig, err := f.Key.Sign(ctx, fresh)
	if err != nil {
		return err
	}
	files[FreshPath], files[FreshSigPath] = fresh, sig
	return nil
}

// rehearse verifies what is about to be published as a host would, so that a release that no host takes is
// refused here. Missing signatures of others are not a reason.
func rehearse(files map[string][]byte, o PublishOptions) error {
	_, err := Verify(&Raw{FS: memFS(files)}, o.Trust.anySigner(), Seen{}, o.Now)
	return err
}

// anySigner is the trust with thresholds of one: for people who are about to add a signature.
func (t *Trust) anySigner() *Trust {
	one := *t
	one.Threshold.Audit, one.Threshold.Enforce = 1, 1
	one.Commits, one.Attestations = nil, nil // these come when everything else is right
	return &one
}

func renewFresh(ctx context.Context, ch Channel, h *history, o PublishOptions) (*Published, error) {
	if h.tipRelease == nil {
		if h.tipProblem != "" {
			return nil, refuse(ErrPublishBlocked, "the channel's tip is no release to vouch for: %s", h.tipProblem)
		}
		return nil, refuse(ErrNoRelease, "the channel is empty")
	}
	files, err := readTree(h.tipRaw.FS)
	if err != nil {
		return nil, err
	}
	v := h.tipRelease
	if err := o.Fresh.write(ctx, files, v.doc, v.release.Sequence, o.Now); err != nil {
		return nil, err
	}
	message := fmt.Sprintf("Freshness of release %d of %s/%s\n\n%s%s\n", v.release.Sequence, o.Trust.Fleet, o.Trust.Channel, ReleaseTrailer, v.digest)
	rev, err := ch.Append(ctx, h.tip, files, message, o.Now)
	if err != nil {
		return nil, err
	}
	return &Published{
		Changed: true, Revision: rev, Sequence: v.release.Sequence, Epoch: v.release.Epoch, Digest: v.digest,
		Signers: v.signers, Files: len(v.files.list),
	}, nil
}

// readTree reads a whole tree that is to be published again with a change.
func readTree(fsys fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p == GitCommitPath || p == GitTagPath { // of the revision before
			return err
		}
		files[p], err = readBounded(fsys, p, maxFileBytes)
		return err
	})
	return files, err
}
