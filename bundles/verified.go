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

	"github.com/muster-fleet/muster/policies"
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
	files        contents
	stored       *Kept         // where the cache keeps the files
	set          *policies.Set // its policies, once somebody asked for them
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
func (v *Verified) FS() fs.FS { return &v.files }

// Policies are the policies of the release, read once. Those of files that did not change are taken from earlier, which
// may be nil: their digests are signed, and nothing of them is read.
func (v *Verified) Policies(earlier *policies.Set) (*policies.Set, error) {
	if v.set != nil {
		return v.set, nil
	}
	set, err := policies.ParseAfter(earlier, &v.files)
	if err == nil {
		v.set = set
	}
	return set, err
}

// Kept answers where the cache keeps the files, nil when it does not.
func (v *Verified) Kept() *Kept { return v.stored }

// Unload lets go of the files that the cache keeps: a host in force needs none of them until it writes the next release.
func (v *Verified) Unload() {
	if v.stored != nil {
		v.files.memory, v.files.kept = nil, v.stored
	}
}

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

// Again verifies the release once more, at another time or under another trust: an unchanged source says nothing new,
// but freshness runs out and keys are revoked all the same. The marks do not apply to what is held. The revision and
// whether the history was rewritten stay as they were, and so do the files: every byte matched the signed digest, and
// what is read later from the cache is compared again then.
func (v *Verified) Again(trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	raw := &Raw{Revision: v.revision, FS: memFS(v.documents()), Rewritten: v.rewritten}
	return verifyHeld(raw, v, trust, seen, now)
}

// documents are what a host keeps of the release besides the listed files: what Verify read, and no more.
func (v *Verified) documents() map[string][]byte {
	out := make(map[string][]byte, len(v.signatures)+3)
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
