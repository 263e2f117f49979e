// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/google/go-containerregistry/pkg/name"
)

// The schemes of references. Plain HTTP to anywhere but this machine has to be spelled out.
const (
	scheme      = "oci://"
	schemePlain = "oci+http://"
)

// IsReference says whether a source's URL leads to a registry.
func IsReference(raw string) bool {
	return strings.HasPrefix(raw, scheme) || strings.HasPrefix(raw, schemePlain)
}

// Reference is where an artifact is, and which: a tag, a digest, or the highest tag within a semver range.
//
//	oci://registry.example.com/acme/policy:stable
//	oci://registry.example.com/acme/policy@sha256:…
//	oci://registry.example.com/acme/policy?semver=~1.4
type Reference struct {
	repo   name.Repository
	tag    string
	digest string
	within *semver.Constraints
	text   string
	plain  bool // HTTP is allowed
}

// String is the reference as it was given; it holds no secret.
func (r *Reference) String() string { return r.text }

// Parse parses a reference. A tag must be named: what "latest" is, somebody else decides.
func Parse(raw string) (*Reference, error) {
	rest, plain := strings.CutPrefix(raw, schemePlain)
	if !plain {
		var ok bool
		if rest, ok = strings.CutPrefix(raw, scheme); !ok {
			return nil, fmt.Errorf("%q is no reference to a registry: it begins with oci://", raw)
		}
	}
	if strings.Contains(strings.SplitN(rest, "/", 2)[0], "@") {
		return nil, errors.New("the reference contains a user or password: put them into a docker configuration and name that file in the credentials")
	}
	rest, query, _ := strings.Cut(rest, "?")
	r := &Reference{text: raw, plain: plain}
	rest, r.digest, _ = strings.Cut(rest, "@")
	if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		rest, r.tag = rest[:colon], rest[colon+1:]
	}
	options := []name.Option{name.StrictValidation}
	if plain {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(rest, options...)
	if err == nil && slices.Contains(strings.Split(rest, "/"), "..") {
		err = errors.New("it leaves the registry's names")
	}
	if err != nil {
		return nil, fmt.Errorf("the reference %q: %w", raw, err)
	}
	r.repo, r.plain = repo, plain || loopback(hostOf(repo.RegistryStr()))
	return r, r.which(query)
}

// which checks that the reference names exactly one way to choose.
func (r *Reference) which(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the reference %q: %w", r.text, err)
	}
	for key := range values {
		if key != "semver" || len(values[key]) != 1 {
			return fmt.Errorf("the reference %q: only one ?semver= is understood", r.text)
		}
	}
	ways := 0
	if r.digest != "" {
		ways++
		if _, err := name.NewDigest(r.repo.Name()+"@"+r.digest, name.StrictValidation); err != nil {
			return fmt.Errorf("the reference %q: %w", r.text, err)
		}
	}
	if r.tag != "" {
		ways++
		if _, err := name.NewTag(r.repo.Name()+":"+r.tag, name.StrictValidation); err != nil {
			return fmt.Errorf("the reference %q: %w", r.text, err)
		}
	}
	if text := values.Get("semver"); text != "" {
		ways++
		if r.within, err = semver.NewConstraint(text); err != nil {
			return fmt.Errorf("the reference %q: the range %q: %w", r.text, text, err)
		}
	}
	if ways != 1 {
		return fmt.Errorf("the reference %q needs exactly one of :tag, @sha256:… and ?semver=RANGE", r.text)
	}
	return nil
}

func hostOf(registry string) string {
	if host, _, err := net.SplitHostPort(registry); err == nil {
		return host
	}
	return registry
}

func loopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxTag bounds what is looked at as a version.
const maxTag = 128

// version reads a tag as a version of this channel: "1.4.0", "v1.4.0" or, as muster publish writes it,
// "stable-1.4.0" for the channel stable. Tags of other channels are nil.
func version(tag, channel string) *semver.Version {
	if len(tag) > maxTag {
		return nil
	}
	v, err := semver.StrictNewVersion(strings.TrimPrefix(strings.TrimPrefix(tag, channel+"-"), "v"))
	if err != nil {
		return nil
	}
	return v
}

// highest is the tag of the highest version within the range; "" when there is none.
func (r *Reference) highest(tags []string, channel string) string {
	best, bestTag := (*semver.Version)(nil), ""
	for _, tag := range tags {
		v := version(tag, channel)
		if v == nil || !r.within.Check(v) {
			continue
		}
		// Two spellings of one version: the same is chosen whatever the order of the list.
		if best == nil || v.GreaterThan(best) || v.Equal(best) && tag > bestTag {
			best, bestTag = v, tag
		}
	}
	return bestTag
}

// versionTag is the tag that names one release for good.
func versionTag(channel string, epoch, sequence int64) string {
	return fmt.Sprintf("%s-%d.%d.0", channel, epoch, sequence)
}
