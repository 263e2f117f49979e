// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Verified is a release that Verify accepted. It is immutable; its files are in memory, so what was checked
// is what is used.
type Verified struct {
	revision     Revision
	rewritten    bool
	trust        int64 // the version under which it was verified
	doc          []byte
	digest       string
	release      Release
	level        Level
	signers      []string
	files        memFS
	signatures   []signatureFile
	artifact     *artifact         // nil unless it came out of a registry
	git          map[string][]byte // the signed commit or tag, when the trust asks for one
	attestations []signatureFile
	fresh        []byte
	freshSig     []byte
	checks       []Check
	conditions   []Condition
}

func (v *Verified) note(kind, format string, args ...any) {
	v.conditions = append(v.conditions, Condition{Type: kind, Message: fmt.Sprintf(format, args...)})
}

// Release is the signed document.
func (v *Verified) Release() Release {
	r := v.release
	r.Files = slices.Clone(r.Files)
	return r
}

// Digest is sha256:<hex> of release.json.
func (v *Verified) Digest() string { return v.digest }

// Level is what the release has enough signers for.
func (v *Verified) Level() Level { return v.level }

// Signers are the names of the distinct trusted signers, sorted.
func (v *Verified) Signers() []string { return slices.Clone(v.signers) }

// Revision is where it was fetched from.
func (v *Verified) Revision() Revision { return v.revision }

// Mark is what Seen remembers of this release.
func (v *Verified) Mark() Mark {
	return Mark{Epoch: v.release.Epoch, Sequence: v.release.Sequence, Digest: v.digest}
}

// AcknowledgeRemoval is the signed word that removing most of a host's rules is meant.
func (v *Verified) AcknowledgeRemoval() bool { return v.release.AcknowledgeRemoval }

// FS holds the listed files and nothing else.
func (v *Verified) FS() fs.FS { return v.files }

// Checks are the checks made, with their evidence.
func (v *Verified) Checks() []Check { return slices.Clone(v.checks) }

// Conditions are what is to be reported beside the acceptance.
func (v *Verified) Conditions() []Condition { return slices.Clone(v.conditions) }

// MarshalJSON writes the evidence.
func (v *Verified) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Revision   Revision    `json:"revision"`
		Digest     string      `json:"digest"`
		Level      Level       `json:"level"`
		Signers    []string    `json:"signers"`
		Release    Release     `json:"release"`
		Checks     []Check     `json:"checks"`
		Conditions []Condition `json:"conditions"`
	}{v.revision, v.digest, v.level, v.signers, v.release, v.checks, v.conditions})
}

// Again verifies the release once more out of memory, at another time or under another trust: an unchanged source
// says nothing new, but freshness runs out and keys are revoked all the same. The marks do not apply to what is held.
// The revision and whether the history was rewritten stay as they were.
func (v *Verified) Again(trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	raw := &Raw{Revision: v.revision, FS: memFS(v.contents()), Rewritten: v.rewritten}
	return verifyHeld(raw, trust, seen, now)
}

// Share lets go of what another release holds too: of files with one digest only the other's bytes stay. Of 10,000
// policies one changes, and the rest is in memory once.
func (v *Verified) Share(with *Verified) {
	if with == nil {
		return
	}
	digests := make(map[string]string, len(with.release.Files))
	for _, f := range with.release.Files {
		digests[f.Path] = f.SHA256
	}
	for _, f := range v.release.Files {
		if digests[f.Path] == f.SHA256 {
			v.files[f.Path] = with.files[f.Path]
		}
	}
}

// contents is everything of the release that a host keeps: what Verify read, and no more.
func (v *Verified) contents() map[string][]byte {
	out := make(map[string][]byte, len(v.files)+len(v.signatures)+3)
	maps.Copy(out, v.files)
	out[ReleasePath] = v.doc
	for _, s := range v.signatures {
		if s.err == nil {
			out[SignaturesDir+"/"+s.name] = s.data
		}
	}
	v.artifact.keep(out)
	maps.Copy(out, v.git)
	v.keepAttestations(out)
	if v.fresh != nil {
		out[FreshPath], out[FreshSigPath] = v.fresh, v.freshSig
	}
	return out
}
