// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/muster-fleet/muster/bundles/sshsig"
)

// Commits is one more gate for releases that come through Git: the channel's newest commit, or an annotated tag
// muster/<channel> on it, must be signed by somebody named here and say which release it is about.
type Commits struct {
	// AllowedSigners is OpenSSH's format: principals, namespaces, valid-after and valid-before.
	AllowedSigners string `yaml:"allowedSigners"`
	// Keyring is armored OpenPGP public keys.
	Keyring string `yaml:"keyring"`

	ssh *sshsig.AllowedSigners
	pgp openpgp.EntityList
}

// Where a transport puts the signed Git objects of a release, byte for byte.
const (
	GitCommitPath = ".muster/git/commit"
	GitTagPath    = ".muster/git/tag"
)

// ReleaseTrailer begins the line of a commit's or tag's message that names the release's digest.
const ReleaseTrailer = "Muster-Release: "

const (
	maxGitObject = 64 << 10
	gitNamespace = "git" // of SSH signatures that git makes
)

func (c *Commits) prepare() error {
	if strings.TrimSpace(c.AllowedSigners) == "" && strings.TrimSpace(c.Keyring) == "" {
		return refuse(ErrTrust, "trust.yaml: commits names neither allowedSigners nor a keyring")
	}
	var err error
	if c.ssh, err = sshsig.Parse("trust.yaml: commits.allowedSigners", []byte(c.AllowedSigners), checkPrincipal); err != nil {
		return refuse(ErrTrust, "trust.yaml: commits").because(err)
	}
	if strings.TrimSpace(c.Keyring) == "" {
		return nil
	}
	if c.pgp, err = openpgp.ReadArmoredKeyRing(strings.NewReader(c.Keyring)); err != nil {
		return refuse(ErrTrust, "trust.yaml: commits.keyring").because(err)
	}
	return nil
}

func checkPrincipal(name string) error {
	if name == "" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r > '~' || !unicode.IsGraphic(r) || r == ' ' }) {
		return fmt.Errorf("%.128q is no plain name", name)
	}
	return nil
}

// checkCommit is the gate. A release that came without a commit does not pass it.
func (e *examination) checkCommit() (string, error) {
	gate := e.trust.Commits
	if gate == nil {
		return "the trust does not ask for it", nil
	}
	var problems []error
	for _, path := range []string{GitTagPath, GitCommitPath} {
		data, err := readBounded(e.raw.FS, path, maxGitObject)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(data) > maxGitObject {
			err = refuse(ErrLimits, "%s is larger than %d bytes", path, maxGitObject)
		}
		var by string
		if err == nil {
			by, err = gate.check(data, path == GitTagPath, e)
		}
		if err == nil {
			e.v.git = map[string][]byte{path: data}
			return by, nil
		}
		problems = append(problems, err)
	}
	if len(problems) == 0 {
		return "", refuse(ErrCommit, "the release came without a signed commit or tag")
	}
	return "", refuse(ErrCommit, "neither commit nor tag passes").because(errors.Join(problems...))
}

func (c *Commits) check(data []byte, tag bool, e *examination) (string, error) {
	o, err := parseGitObject(data, tag)
	if err != nil {
		return "", err
	}
	if o.release != e.v.digest {
		return "", fmt.Errorf("the %s is about release %q", o.kind, o.release)
	}
	signedAt, err := o.signedAt()
	if err != nil {
		return "", err
	}
	// Who signs backwards in time is not believed for a new release; one that is held was new once.
	times := []time.Time{signedAt}
	if !e.held {
		times = append(times, latest(e.now, e.seen.Floor))
	}
	for _, at := range times {
		by, err := c.verify(o, at)
		if err != nil {
			return "", err
		}
		o.by = by
	}
	return fmt.Sprintf("%s signed by %s at %s", o.kind, o.by, signedAt.Format(time.RFC3339)), nil
}

// signedAt is when the object says that it was signed. Git writes its own time before it asks for a signature, and a
// person takes a while at a prompt; an OpenPGP signature says when it was made (RFC 9580, section 5.2.3.11).
func (o *gitObject) signedAt() (time.Time, error) {
	if o.bySSH() {
		return o.when, nil
	}
	sig, _, err := o.openPGP()
	if err != nil {
		return time.Time{}, err
	}
	return sig.CreationTime, nil
}

func (o *gitObject) bySSH() bool { return bytes.HasPrefix(o.signature, []byte(sshBegin)) }

func (c *Commits) verify(o *gitObject, at time.Time) (string, error) {
	if o.bySSH() {
		key, err := sshsig.Verify(o.signature, gitNamespace, o.signed)
		if err != nil {
			return "", err
		}
		return c.ssh.Who(key, gitNamespace, at)
	}
	return c.verifyPGP(o, at)
}

func (c *Commits) verifyPGP(o *gitObject, at time.Time) (string, error) {
	_, raw, err := o.openPGP()
	if err != nil {
		return "", err
	}
	config := &packet.Config{Time: func() time.Time { return at }}
	signer, err := openpgp.CheckDetachedSignature(c.pgp, bytes.NewReader(o.signed), bytes.NewReader(raw), config)
	if err != nil {
		return "", fmt.Errorf("OpenPGP: %w", err)
	}
	return "OpenPGP key " + strconv.FormatUint(signer.PrimaryKey.KeyId, 16), nil
}

// openPGP returns the signature and its bytes. It takes exactly one packet: of several, two readers might believe two.
func (o *gitObject) openPGP() (*packet.Signature, []byte, error) {
	block, err := armor.Decode(bytes.NewReader(o.signature))
	if err != nil || block.Type != "PGP SIGNATURE" {
		return nil, nil, errors.New("the signature is no OpenPGP signature")
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(block.Body); err != nil {
		return nil, nil, errors.New("the signature is no OpenPGP signature")
	}
	packets := packet.NewReader(bytes.NewReader(raw.Bytes()))
	one, err := packets.Next()
	if err != nil {
		return nil, nil, errors.New("the signature is no OpenPGP signature")
	}
	sig, ok := one.(*packet.Signature)
	if !ok || sig.SigType != packet.SigTypeBinary {
		return nil, nil, errors.New("the signature is not over a document")
	}
	if _, err := packets.Next(); err == nil {
		return nil, nil, errors.New("there are two OpenPGP signatures in one")
	}
	return sig, raw.Bytes(), nil
}
