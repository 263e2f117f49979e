// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/muster-fleet/muster/bundles"
)

// ChannelConfig is a channel in a registry, seen by its publisher.
type ChannelConfig struct {
	Reference   string
	Channel     string
	Credentials Credentials
	// Keys also sign the artifact, so that stock cosign verifies it.
	Keys []*bundles.KeySigner
	// LookBack is how many artifacts before the newest are read; 0 means DefaultLookBack. Each costs three requests.
	LookBack int
	Now      func() time.Time
}

// DefaultLookBack finds the last number given, also behind a few artifacts that somebody else put there.
const DefaultLookBack = 4

// Channel implements bundles.Channel over one tag.
type Channel struct {
	cfg    ChannelConfig
	ref    *Reference
	client *client
	pusher *remote.Pusher
	limits Limits
	ctx    context.Context //nolint:containedctx // bundles.Channel.Release has none: Refresh's serves
	back   int
}

// OpenChannel checks the configuration; Refresh is the first to touch the network.
func OpenChannel(cfg ChannelConfig) (*Channel, error) {
	ref, err := Parse(cfg.Reference)
	if err != nil {
		return nil, err
	}
	switch {
	case !bundles.ValidName(cfg.Channel):
		return nil, fmt.Errorf("channel %q is not a name", cfg.Channel)
	case ref.tag == "":
		return nil, fmt.Errorf("%s: publishing needs a tag", ref)
	case strings.HasPrefix(ref.tag, cfg.Channel+"-"):
		return nil, fmt.Errorf("%s: tags that begin with %s- are those of single releases", ref, cfg.Channel)
	}
	if err := cfg.Credentials.check(ref); err != nil {
		return nil, err
	}
	c, err := newClient(ref, &cfg.Credentials, cfg.Now)
	if err != nil {
		return nil, explain(ref, err)
	}
	pusher, err := remote.NewPusher(c.options...)
	if err != nil {
		return nil, err
	}
	if cfg.LookBack <= 0 {
		cfg.LookBack = DefaultLookBack
	}
	return &Channel{cfg: cfg, ref: ref, client: c, pusher: pusher, limits: DefaultLimits()}, nil
}

// Refresh resolves the tag; "" when it does not exist yet.
func (c *Channel) Refresh(ctx context.Context) (bundles.Revision, error) {
	c.ctx, c.back = ctx, 0
	d, err := c.client.head(ctx, c.client.byTag(c.ref.tag))
	if notThere(err) {
		return "", nil
	}
	return bundles.Revision(d), explain(c.ref, err)
}

// Release reads one artifact with what lies beside it, and the digest of the one before.
func (c *Channel) Release(rev bundles.Revision) (*bundles.Raw, bundles.Revision, error) {
	files, _, err := c.client.release(c.ctx, string(rev), c.limits, nil)
	if err == nil {
		var b beside
		if b, err = c.client.listBeside(c.ctx, string(rev)); err == nil {
			err = c.client.fetchBeside(c.ctx, b, files)
		}
	}
	if err != nil {
		return nil, "", explain(c.ref, err)
	}
	raw := &bundles.Raw{Revision: rev, FS: bundles.NewMemFS(files)}
	if c.back++; c.back > c.cfg.LookBack {
		return raw, "", nil
	}
	return raw, previousOf(files[bundles.ArtifactManifestPath]), nil
}

// Rewritten says whether the artifacts before the tip are known not to lead back to an older one.
func (c *Channel) Rewritten(ctx context.Context, tip, old bundles.Revision) (bool, error) {
	manifest, err := c.client.manifest(ctx, c.client.byDigest(string(tip)))
	if err != nil {
		return false, explain(c.ref, err)
	}
	return c.client.ancestry(ctx, string(tip), manifest, old)
}

func previousOf(manifest []byte) bundles.Revision {
	m, err := parseManifest(manifest)
	if err != nil {
		return ""
	}
	h, err := v1.NewHash(m.Annotations[previousKey])
	if err != nil || h.Algorithm != "sha256" {
		return ""
	}
	return bundles.Revision(h.String())
}

// Append pushes files as the artifact after parent: the content by its digest first, what lies beside it next, and
// the tags last, so that nobody who follows a tag finds half of a release.
func (c *Channel) Append(ctx context.Context, parent bundles.Revision, files map[string][]byte, _ string, _ time.Time) (bundles.Revision, error) {
	rev, err := c.push(ctx, parent, files)
	return rev, explain(c.ref, err)
}

func (c *Channel) push(ctx context.Context, parent bundles.Revision, files map[string][]byte) (bundles.Revision, error) {
	ctx, b := withBudget(ctx, "the publication", 4096, 64<<20)
	manifest, parts, err := c.artifact(ctx, parent, files)
	if err != nil {
		return "", b.blame(err)
	}
	if err := c.upload(ctx, manifest, parts); err != nil {
		return "", b.blame(err)
	}
	subject := &v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: manifest.hash(), Size: int64(len(manifest))}
	if err := c.putBeside(ctx, subject, files); err != nil {
		return "", b.blame(err)
	}
	if manifest.digest() == string(parent) {
		return parent, nil
	}
	return bundles.Revision(manifest.digest()), b.blame(c.tag(ctx, parent, manifest, files[bundles.ReleasePath]))
}

// artifact answers the manifest of these files and its parts. The parent itself, when it is the same release already.
func (c *Channel) artifact(ctx context.Context, parent bundles.Revision, files map[string][]byte) (rawManifest, []part, error) {
	config := newPart(bundles.ArtifactConfigType, files[bundles.ReleasePath])
	if parent != "" {
		// A parent that cannot be read or is no release is simply another artifact.
		raw, err := c.client.manifest(ctx, c.client.byDigest(string(parent)))
		if err != nil && !passedOver(err) {
			return nil, nil, err
		}
		if m, err := parseRelease(raw, c.limits); err == nil && m.Config.Digest == config.descriptor.Digest {
			return raw, nil, nil
		}
	}
	payload := maps.Clone(files)
	maps.DeleteFunc(payload, func(name string, _ []byte) bool { return strings.HasPrefix(name, bundles.MetaDir+"/") })
	var packed bytes.Buffer
	if err := bundles.WriteArchive(&packed, payload); err != nil {
		return nil, nil, err
	}
	var release bundles.Release
	if err := json.Unmarshal(files[bundles.ReleasePath], &release); err != nil {
		return nil, nil, bundles.NewRefusal(bundles.ErrMalformed, err, "release.json")
	}
	layer := newPart(layerType, packed.Bytes())
	raw, err := buildManifest(bundles.ArtifactType, config, []part{layer}, nil, releaseAnnotations(&release, parent))
	return raw, []part{config, layer}, err
}

// upload pushes the parts and then the manifest, by digest.
func (c *Channel) upload(ctx context.Context, manifest rawManifest, parts []part) error {
	for _, p := range parts {
		if err := c.pusher.Upload(ctx, c.client.repo, static.NewLayer(p.data, p.descriptor.MediaType)); err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		return nil // it is there
	}
	return c.pusher.Put(ctx, c.client.byDigest(manifest.digest()), manifest)
}

// putBeside pushes the signatures as referrers and the documents at their tag; what is there already stays.
func (c *Channel) putBeside(ctx context.Context, subject *v1.Descriptor, files map[string][]byte) error {
	there, err := c.client.listBeside(ctx, subject.Digest.String())
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		signer, ok := strings.CutPrefix(name, bundles.SignaturesDir+"/")
		if !ok {
			continue
		}
		p := newPart(signatureType, files[name]).titled(strings.TrimSuffix(signer, ".sigstore.json"))
		if err := c.refer(ctx, signatureType, p, subject, nil, there.referrers); err != nil {
			return err
		}
	}
	for _, k := range c.cfg.Keys {
		if err := c.signArtifact(ctx, k, subject, there.referrers); err != nil {
			return err
		}
	}
	return c.putDocuments(ctx, subject.Digest.String(), there.documents, files)
}

// signArtifact adds cosign's signature by k, unless k made one before: the signature is another each time, so the
// key's id in an annotation tells.
func (c *Channel) signArtifact(ctx context.Context, k *bundles.KeySigner, subject *v1.Descriptor, there []v1.Descriptor) error {
	const keyID = "dev.muster.key"
	for _, d := range there {
		if d.Annotations[keyID] == k.ID() {
			return nil
		}
	}
	data, err := k.SignArtifact(ctx, subject.Digest.String())
	if err != nil {
		return err
	}
	return c.refer(ctx, bundleType, newPart(bundleType, data), subject, map[string]string{
		keyID: k.ID(), "dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": bundles.PredicateSign,
	}, there)
}

func (c *Channel) refer(ctx context.Context, kind string, p part, subject *v1.Descriptor, annotations map[string]string, there []v1.Descriptor) error {
	config := empty()
	manifest, err := buildManifest(kind, config, []part{p}, subject, annotations)
	if err != nil {
		return err
	}
	if contains(there, manifest) {
		return nil
	}
	return c.upload(ctx, manifest, []part{config, p})
}

// putDocuments replaces the documents, when they differ.
func (c *Channel) putDocuments(ctx context.Context, digest, there string, files map[string][]byte) error {
	config := empty()
	parts := []part{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if isDocument(name) {
			parts = append(parts, newPart(documentsType, files[name]).titled(strings.TrimPrefix(name, bundles.MetaDir+"/")))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	manifest, err := buildManifest(documentsType, config, parts, nil, nil)
	if err != nil || manifest.digest() == there {
		return err
	}
	if err := c.upload(ctx, manifest, append(parts, config)); err != nil {
		return err
	}
	return c.pusher.Put(ctx, c.client.byTag(besideTag(digest, documentsSuffix)), manifest)
}

// tag moves the tags to the new artifact. A registry cannot compare and swap; the tag of the single release is looked
// at before and after, and the tag that hosts follow is read back; what is left is the window after that.
func (c *Channel) tag(ctx context.Context, parent bundles.Revision, manifest rawManifest, doc []byte) error {
	var release bundles.Release
	if err := json.Unmarshal(doc, &release); err != nil {
		return bundles.NewRefusal(bundles.ErrMalformed, err, "release.json")
	}
	own := c.client.byTag(versionTag(c.cfg.Channel, release.Epoch, release.Sequence))
	if at, err := c.client.head(ctx, own); err == nil && at != manifest.digest() {
		return fmt.Errorf("%w: %s is %s already (when nobody else publishes, a publication was cut off there: give --sequence a higher number)",
			bundles.ErrLostRace, own, at)
	} else if err != nil && !notThere(err) {
		return err
	}
	tip, err := c.client.head(ctx, c.client.byTag(c.ref.tag))
	if err != nil && !notThere(err) {
		return err
	}
	if tip != string(parent) {
		return fmt.Errorf("%w: %s moved to %s", bundles.ErrLostRace, c.ref, tip)
	}
	if err := c.pusher.Put(ctx, own, manifest); err != nil {
		return err
	}
	if at, err := c.client.head(ctx, own); err != nil || at != manifest.digest() {
		return errors.Join(fmt.Errorf("%w: %s is %s now", bundles.ErrLostRace, own, at), err)
	}
	if err := c.pusher.Put(ctx, c.client.byTag(c.ref.tag), manifest); err != nil {
		return err
	}
	// Read back: whoever wrote last has the tag, and the other must not believe that hosts will see its release.
	if at, err := c.client.head(ctx, c.client.byTag(c.ref.tag)); err != nil || at != manifest.digest() {
		return errors.Join(fmt.Errorf("%w: %s moved to %s after the publication", bundles.ErrLostRace, c.ref, at), err)
	}
	return nil
}

var _ bundles.Channel = (*Channel)(nil)
