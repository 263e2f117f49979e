// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// Trust is trust.yaml: what a host accepts. It is held on the host and never taken from a release.
// LoadTrust is its maker; Verify checks it again, so that a Trust made by hand cannot weaken anything.
type Trust struct {
	Fleet     string    `yaml:"fleet"`
	Channel   string    `yaml:"channel"`
	Version   int64     `yaml:"version"`
	Epoch     int64     `yaml:"epoch"`
	Threshold Threshold `yaml:"threshold"`
	Signers   []Signer  `yaml:"signers"`
	// Freshness is who may say that a release is still the current one; nil when the fleet does not ask.
	Freshness *Freshness `yaml:"freshness"`
	// Collectors may sign the roll (fleet reads them).
	Collectors []Signer `yaml:"collectors"`
	Revoked    Revoked  `yaml:"revoked"`
	// MinSequence is the lowest sequence of this epoch that a host without memory accepts.
	MinSequence int64 `yaml:"minSequence"`
	Scope       Scope `yaml:"scope"`
	// RequireAncestry refuses a channel whose history was rewritten instead of reporting it.
	RequireAncestry bool `yaml:"requireAncestry"`
	// Commits asks for a signed Git commit or tag, too; nil does not.
	Commits *Commits `yaml:"commits"`
	// Attestations are the statements that a release needs besides its signatures.
	Attestations []Attestation `yaml:"attestations"`

	digest string
	// before is the version that this one was followed from on this host; nil for the pinned file.
	before *Trust
}

// Threshold says how many distinct signers each level needs.
type Threshold struct {
	Audit   int `yaml:"audit"`
	Enforce int `yaml:"enforce"`
	// Trust is how many signers must agree on the next trust file; without it only the host's operator may replace it.
	Trust int `yaml:"trust"`
}

// Signer is a name and a key (PEM), or a keyless identity.
type Signer struct {
	Name    string   `yaml:"name"`
	Key     string   `yaml:"key"`
	Keyless *Keyless `yaml:"keyless"`

	public crypto.PublicKey
	id     string
}

// Freshness names the signers of fresh.json and how old it may be.
type Freshness struct {
	Signers []Signer `yaml:"signers"`
	MaxAge  Duration `yaml:"maxAge"`
}

// Revoked lists keys (sha256 of the DER public key, hex) and releases (sha256 of release.json, hex).
type Revoked struct {
	Keys     []string `yaml:"keys"`
	Releases []string `yaml:"releases"`
}

// Scope limits what a release may contain; an empty scope permits everything.
type Scope struct {
	Kinds      []string `yaml:"kinds"`
	Namespaces []string `yaml:"namespaces"`
	// Hosts are the only ones that its policies may select.
	Hosts []policies.HostPattern `yaml:"hosts"`
}

// Duration is a time.Duration written as in Go ("26h").
type Duration time.Duration

// UnmarshalText parses the duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Public is the signer's public key; nil for a keyless one.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// ID is what makes two signers distinct and what a revocation names, in hex: the sha256 of the DER public key,
// or of a keyless signer's issuer and subject.
func (s *Signer) ID() string { return s.id }

// Digest is the sha256 of the trust file in hex, as muster join --trust-sha256 takes it.
func (t *Trust) Digest() string { return t.digest }

// Fresh reports whether the trust asks for freshness.
func (t *Trust) Fresh() bool { return t.Freshness != nil }

// LoadTrust parses trust.yaml. Everything that is not understood, doubled, empty, a pattern or contradictory
// is an error; what a later version can check but this one cannot is ErrUnsupported.
func LoadTrust(data []byte) (*Trust, error) {
	var t Trust
	if err := strictYAML("trust.yaml", data, &t); err != nil {
		return nil, NewRefusal(ErrTrust, err, "trust.yaml is not usable")
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	if err := t.validate(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	t.digest = hex.EncodeToString(sum[:])
	return &t, nil
}

// prepare reads the keys.
func (t *Trust) prepare() error {
	lists := [][]Signer{t.Signers, t.Collectors}
	if t.Freshness != nil {
		lists = append(lists, t.Freshness.Signers)
	}
	for _, list := range lists {
		for i := range list {
			if err := list[i].prepare(); err != nil {
				return err
			}
		}
	}
	if t.Commits != nil {
		if err := t.Commits.prepare(); err != nil {
			return err
		}
	}
	if len(t.Attestations) > maxAttestations {
		return refuse(ErrTrust, "trust.yaml: more than %d attestations", maxAttestations)
	}
	for i := range t.Attestations {
		if err := t.Attestations[i].prepare(); err != nil {
			return err
		}
	}
	for i := range t.Collectors {
		if t.Collectors[i].Keyless != nil {
			return refuse(ErrUnsupported, "trust.yaml: collector %q is keyless: the roll is signed with keys only", t.Collectors[i].Name)
		}
	}
	return nil
}

func (s *Signer) prepare() error {
	if s.Keyless != nil {
		return s.Keyless.prepare(s)
	}
	pub, id, err := parsePublicKey([]byte(s.Key))
	if err != nil {
		return NewRefusal(ErrTrust, err, "trust.yaml: signer %q", s.Name)
	}
	s.public, s.id = pub, id
	return nil
}

var (
	fleetName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	signerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	hexDigest  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ValidName reports whether s may name a fleet or a channel.
func ValidName(s string) bool { return fleetName.MatchString(s) && !strings.Contains(s, "..") }

func (t *Trust) validate() error {
	bad := func(format string, args ...any) error {
		return refuse(ErrTrust, "trust.yaml: %s", fmt.Sprintf(format, args...))
	}
	switch {
	case !ValidName(t.Fleet):
		return bad("fleet %q is not a name (a-z, 0-9, ., -)", t.Fleet)
	case !ValidName(t.Channel):
		return bad("channel %q is not a name (a-z, 0-9, ., -)", t.Channel)
	case !between(1, t.Version):
		return bad("version must be at least 1")
	case !between(1, t.Epoch):
		return bad("epoch must be at least 1")
	case !between(0, t.MinSequence):
		return bad("minSequence must not be negative")
	case len(t.Signers) == 0:
		return bad("there are no signers")
	case len(t.Signers) > maxSigners || len(t.Collectors) > maxSigners:
		return bad("more than %d signers", maxSigners)
	}
	if err := distinct("signers", t.Signers); err != nil {
		return err
	}
	if err := distinct("collectors", t.Collectors); err != nil {
		return err
	}
	if err := t.validateThreshold(); err != nil {
		return err
	}
	if err := t.validateFreshness(); err != nil {
		return err
	}
	return t.validateRest()
}

// between says whether n is at least low and can be written exactly.
func between(low, n int64) bool { return n >= low && n <= maxCounter }

func (t *Trust) validateThreshold() error {
	th := t.Threshold
	switch {
	case th.Audit < 1 || th.Enforce < 1:
		return refuse(ErrTrust, "trust.yaml: threshold.audit and threshold.enforce must be at least 1")
	case th.Trust < 0:
		return refuse(ErrTrust, "trust.yaml: threshold.trust must not be negative")
	case th.Audit > th.Enforce:
		return refuse(ErrTrust, "trust.yaml: threshold.audit (%d) is above threshold.enforce (%d)", th.Audit, th.Enforce)
	case th.Enforce > len(t.Signers) || th.Trust > len(t.Signers):
		return refuse(ErrTrust, "trust.yaml: a threshold is above the number of signers (%d)", len(t.Signers))
	}
	return nil
}

func (t *Trust) validateFreshness() error {
	f := t.Freshness
	if f == nil {
		return nil
	}
	if len(f.Signers) == 0 || len(f.Signers) > maxSigners {
		return refuse(ErrTrust, "trust.yaml: freshness needs between 1 and %d signers", maxSigners)
	}
	if f.MaxAge <= 0 {
		return refuse(ErrTrust, "trust.yaml: freshness.maxAge must be positive")
	}
	return distinct("freshness.signers", f.Signers)
}

func (t *Trust) validateRest() error {
	for _, list := range [][]string{t.Revoked.Keys, t.Revoked.Releases} {
		for _, d := range list {
			if !hexDigest.MatchString(strings.TrimPrefix(d, "sha256:")) {
				return refuse(ErrTrust, "trust.yaml: revoked %q is not a sha256 in lower-case hex", d)
			}
		}
	}
	for _, h := range t.Scope.Hosts {
		if name := strings.TrimSuffix(string(h), "*"); name == "" || strings.ContainsAny(name, "*?[], \t") {
			return refuse(ErrTrust, "trust.yaml: scope.hosts: %q must be a host's name, or the beginning of names and one * (web-*)", h)
		}
	}
	for _, k := range append(append([]string{}, t.Scope.Kinds...), t.Scope.Namespaces...) {
		if k == "" || strings.ContainsAny(k, "*?[") {
			return refuse(ErrTrust, "trust.yaml: scope entry %q must be an exact name", k)
		}
	}
	return nil
}

// distinct refuses doubled names and doubled keys: one person with two names is still one signer.
func distinct(where string, list []Signer) error {
	names, ids := map[string]bool{}, map[string]string{}
	for i := range list {
		s := &list[i]
		if !signerName.MatchString(s.Name) {
			return refuse(ErrTrust, "trust.yaml: %s[%d]: name %q is empty or not a plain name", where, i, s.Name)
		}
		if names[strings.ToLower(s.Name)] {
			return refuse(ErrTrust, "trust.yaml: %s: the name %q is used twice", where, s.Name)
		}
		names[strings.ToLower(s.Name)] = true
		if s.public == nil && (s.Keyless == nil || s.Keyless.verifier == nil) {
			return refuse(ErrTrust, "trust.yaml: %s: signer %q has no key", where, s.Name)
		}
		if other, ok := ids[s.id]; ok {
			return refuse(ErrTrust, "trust.yaml: %s: %q and %q have the same key or identity", where, other, s.Name)
		}
		ids[s.id] = s.Name
	}
	return nil
}

// RevokedKey reports whether the key with this id is revoked.
func (t *Trust) RevokedKey(id string) bool {
	for _, k := range t.Revoked.Keys {
		if strings.TrimPrefix(k, "sha256:") == id {
			return true
		}
	}
	return false
}

func (t *Trust) revokedRelease(digest string) bool {
	for _, r := range t.Revoked.Releases {
		if strings.TrimPrefix(r, "sha256:") == strings.TrimPrefix(digest, "sha256:") {
			return true
		}
	}
	return false
}

// Warnings are what is lawful in a trust file and probably not meant.
func (t *Trust) Warnings() []string {
	var out []string
	left := 0
	for i := range t.Signers {
		if !t.RevokedKey(t.Signers[i].id) {
			left++
		}
	}
	warn := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	warn(left < len(t.Signers), "%d of %d signers are revoked: take them out of signers", len(t.Signers)-left, len(t.Signers))
	warn(left < t.Threshold.Enforce, "only %d signers are not revoked and %d are needed: nothing can be enforced", left, t.Threshold.Enforce)
	warn(t.Threshold.Trust == 0, "threshold.trust is not set: this file can only be replaced by hand on each host")
	warn(t.Threshold.Trust == 1 && len(t.Signers) > 1, "threshold.trust is 1: one stolen key can replace this file on every host")
	warn(t.Threshold.Enforce == 1 && len(t.Signers) > 1, "threshold.enforce is 1: one stolen key can change what every host enforces")
	warn(t.Freshness == nil, "freshness is not set: a host cannot tell withheld releases from a quiet week")
	return out
}
