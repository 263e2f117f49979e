// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/oci/static"

	"github.com/muster-fleet/muster/bundles"
)

// beside is what lies beside an artifact: where, not yet what.
type beside struct {
	referrers []v1.Descriptor // manifests of signatures, at most maxParts
	simple    string          // digest of the manifest at the tag .sig, "" for none
	stated    string          // digest of the manifest at the tag .att, "" for none
	documents string          // digest of the manifest at the tag .muster, "" for none
}

// mark changes whenever something was added or replaced.
func (b beside) mark() string {
	h := sha256.New()
	for _, d := range b.referrers {
		_, _ = io.WriteString(h, d.Digest.String()+"\n")
	}
	_, _ = io.WriteString(h, b.simple+"\n"+b.stated+"\n"+b.documents+"\n")
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func besideTag(digest, suffix string) string { return strings.Replace(digest, ":", "-", 1) + suffix }

const (
	simpleSuffix    = ".sig"
	statedSuffix    = ".att"
	documentsSuffix = ".muster"
)

// listBeside asks for the referrers first (the API, or the tag that stands in for it), then for cosign's older tags.
func (c *client) listBeside(ctx context.Context, digest string) (beside, error) {
	var out beside
	all, err := c.referrers(ctx, digest)
	if err != nil {
		return out, err
	}
	out.referrers = signaturesOf(all)
	for suffix, into := range map[string]*string{simpleSuffix: &out.simple, statedSuffix: &out.stated, documentsSuffix: &out.documents} {
		if *into, err = c.head(ctx, c.byTag(besideTag(digest, suffix))); err != nil && !notThere(err) {
			return out, err
		}
	}
	return out, nil
}

func (c *client) referrers(ctx context.Context, digest string) ([]v1.Descriptor, error) {
	ctx, b := withBudget(ctx, "the list of referrers", pollRequests, 1<<20)
	index, err := remote.Referrers(c.byDigest(digest), remote.Reuse(c.puller), remote.WithContext(ctx))
	if err != nil {
		return nil, b.blame(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, bundles.NewRefusal(bundles.ErrMalformed, err, "the list of referrers")
	}
	return list.Manifests, nil
}

// signaturesOf picks what may be a signature: muster's own first, so that a flood of others hides none of them. An
// entry without a type, or with that of its empty config, was listed by an older tool and may be one.
func signaturesOf(all []v1.Descriptor) []v1.Descriptor {
	var out []v1.Descriptor
	for _, d := range all {
		if d.Digest.Algorithm == "sha256" && slices.Contains([]string{signatureType, bundleType, emptyType, ""}, d.ArtifactType) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b v1.Descriptor) int {
		if own := func(d v1.Descriptor) bool { return d.ArtifactType == signatureType }; own(a) != own(b) {
			if own(a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Digest.Hex, b.Digest.Hex)
	})
	out = slices.CompactFunc(out, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })
	return out[:min(len(out), maxParts)]
}

// fetchBeside reads the signatures and documents into files. One that cannot be read is no reason to miss the others:
// it is handed on empty, and the checks name it.
func (c *client) fetchBeside(ctx context.Context, b beside, files map[string][]byte) error {
	left := maxParts
	for _, d := range b.referrers {
		if err := c.referrer(ctx, d, files); err != nil {
			if !passedOver(err) {
				return err
			}
			files[bundles.SignatureFile(d.Digest.Hex[:16])] = nil
		}
		left--
	}
	for _, tag := range []struct{ digest, media string }{{b.simple, simpleType}, {b.stated, statedType}} {
		if tag.digest == "" {
			continue
		}
		read, err := c.older(ctx, tag.digest, tag.media, left, files)
		if err != nil && !passedOver(err) {
			return err
		}
		left -= read
	}
	if b.documents != "" {
		// Without them a release is stale at worst, and is reported so.
		if err := c.documents(ctx, b.documents, files); err != nil && !passedOver(err) {
			return err
		}
	}
	return nil
}

// passedOver says that one signature is broken or gone, rather than that the registry cannot be asked.
func passedOver(err error) bool { return bundles.RefusalName(err) != "" || notThere(err) }

func (c *client) referrer(ctx context.Context, d v1.Descriptor, files map[string][]byte) error {
	raw, err := c.manifest(ctx, c.byDigest(d.Digest.String()))
	if err != nil {
		return err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return err
	}
	for _, l := range m.Layers[:min(len(m.Layers), maxParts)] {
		switch l.MediaType {
		case signatureType:
			data, err := c.bytes(ctx, l, maxDocument)
			if err != nil {
				return err
			}
			files[signatureName(l, files)] = data
		case bundleType:
			data, err := c.bytes(ctx, l, maxDocument)
			if err != nil {
				return err
			}
			files[bundles.ArtifactSignaturesDir+"/"+l.Digest.Hex[:16]+".sigstore.json"] = data
		}
	}
	return nil
}

// signatureName is the signer's name where the publisher gave one and nobody else took it. Nothing decides on it.
func signatureName(l v1.Descriptor, files map[string][]byte) string {
	if title := l.Annotations[titleKey]; bundles.ValidName(title) {
		if _, taken := files[bundles.SignatureFile(title)]; !taken {
			return bundles.SignatureFile(title)
		}
	}
	return bundles.SignatureFile(l.Digest.Hex[:16])
}

// older reads cosign's older kind of signatures or statements, at most left of them: each layer is a payload or an
// envelope, and its annotations hold the rest.
func (c *client) older(ctx context.Context, digest, media string, left int, files map[string][]byte) (read int, err error) {
	raw, err := c.manifest(ctx, c.byDigest(digest))
	if err != nil {
		return 0, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return 0, err
	}
	var problems []error
	layers := m.Layers[:min(len(m.Layers), left)]
	for i, l := range layers {
		if string(l.MediaType) != media {
			continue
		}
		content, err := c.bytes(ctx, l, maxDocument)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if err := keepOlder(l, i, content, files); err != nil {
			return len(layers), err
		}
	}
	for _, p := range problems {
		if !passedOver(p) {
			return len(layers), p
		}
	}
	return len(layers), errors.Join(problems...)
}

// keepOlder hands one on, with what its annotations say.
func keepOlder(l v1.Descriptor, i int, content []byte, files map[string][]byte) error {
	material := bundles.SimpleMaterial{
		Certificate: l.Annotations[static.CertificateAnnotationKey],
		Log:         l.Annotations[static.BundleAnnotationKey], Timestamp: l.Annotations[static.RFC3161TimestampAnnotationKey],
	}
	var one any = bundles.SimpleSignature{Payload: content, Signature: l.Annotations[static.SignatureAnnotationKey], SimpleMaterial: material}
	name := strconv.Itoa(i) + ".simple.json"
	if l.MediaType == statedType {
		one, name = bundles.SimpleStatement{Envelope: content, SimpleMaterial: material}, strconv.Itoa(i)+".statement.json"
	}
	data, err := json.Marshal(one)
	files[bundles.ArtifactSignaturesDir+"/"+name] = data
	return err
}

// documents reads fresh.json and the trust files. Each keeps its place below .muster.
func (c *client) documents(ctx context.Context, digest string, files map[string][]byte) error {
	raw, err := c.manifest(ctx, c.byDigest(digest))
	if err != nil {
		return err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return err
	}
	if m.ArtifactType != documentsType || len(m.Layers) > maxPapers {
		return bundles.NewRefusal(bundles.ErrMalformed, nil, "the documents beside the release are %q with %d parts", clip(m.ArtifactType), len(m.Layers))
	}
	for _, l := range m.Layers {
		name, ok := documentName(l)
		if !ok {
			return bundles.NewRefusal(bundles.ErrPath, nil, "%q is no document beside a release", clip(l.Annotations[titleKey]))
		}
		if files[name], err = c.bytes(ctx, l, maxDocument); err != nil {
			return err
		}
	}
	return nil
}

// documentName is where a document lies: below .muster, and in the place of nothing that is read elsewhere.
func documentName(l v1.Descriptor) (string, bool) {
	title := l.Annotations[titleKey]
	name := bundles.MetaDir + "/" + title
	return name, bundles.CheckPath(title) == nil && isDocument(name)
}

func isDocument(name string) bool {
	rest, ok := strings.CutPrefix(name, bundles.MetaDir+"/")
	return ok && rest != "" && name != bundles.ReleasePath &&
		!strings.HasPrefix(name, bundles.SignaturesDir+"/") && !strings.HasPrefix(name, bundles.ArtifactDir+"/")
}
