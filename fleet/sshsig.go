// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles/sshsig"
)

// The SSHSIG namespaces: a signature for one purpose is worth nothing for another.
const (
	NamespaceReport = "muster-report"
	NamespaceRoll   = "muster-roll"
)

// Errors of signatures and of enrolment.
var (
	ErrSignatureMalformed = sshsig.ErrMalformed
	ErrSignatureNamespace = sshsig.ErrNamespace
	ErrSignatureAlgorithm = sshsig.ErrAlgorithm
	ErrSignatureInvalid   = sshsig.ErrInvalid
	ErrAllowedSigners     = sshsig.ErrAllowedSigners
	ErrNotEnrolled        = sshsig.ErrNotEnrolled
)

// AllowedSigners is a parsed hosts.allowed_signers: which key may speak for which host.
type AllowedSigners = sshsig.AllowedSigners

// ParseAllowedSigners reads a whole file whose principals are host ids; name is used in positions.
func ParseAllowedSigners(name string, b []byte) (*AllowedSigners, error) {
	return sshsig.Parse(name, b, CheckHostID)
}

// EnrolledFile is where a release lists who may report for which host.
const EnrolledFile = "hosts.allowed_signers"

// Enrolled reads that list out of a release; nil when the release has none. Every host refuses a release whose list
// has an error, so lint and publish ask this function, too.
func Enrolled(release fs.FS) (*AllowedSigners, error) {
	text, err := fs.ReadFile(release, EnrolledFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nobody is known to be enrolled, which AllowedSigners' methods understand
	}
	if err != nil {
		return nil, fmt.Errorf("enrolled hosts: %w", err)
	}
	return ParseAllowedSigners(EnrolledFile, text)
}

// Sign makes a detached, armored SSHSIG over message, as "ssh-keygen -Y sign -n NAMESPACE" does.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	if k, ok := signer.(*HostKey); ok {
		signer = k.Signer // the embedded one may choose algorithms, which the embedding hides
	}
	return sshsig.Sign(signer, namespace, message)
}

// Verify checks an armored SSHSIG over message and answers the key that made it: a plain key, or an
// *ssh.Certificate whose own signature is not judged here (AllowedSigners does that).
func Verify(armored []byte, namespace string, message []byte) (ssh.PublicKey, error) {
	return sshsig.Verify(armored, namespace, message)
}
