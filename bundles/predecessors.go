// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import "io/fs"

// predecessors are the trust files before a publisher's own. They are what hosts that slept need, and what tells the
// releases of earlier signers from a stranger's.
type predecessors struct {
	trusts []*Trust          // newest first
	files  map[string][]byte // trust files and signatures, by path
}

// known says that there is a trust file before the publisher's own.
func (p *predecessors) known() bool { return len(p.trusts) > 0 }

// findPredecessors walks back from t, whose link is given, through what one revision carries. A version that the next
// one does not properly follow ends the walk: t's own signers vouch for the versions before theirs and nobody else.
func findPredecessors(fsys fs.FS, t *Trust, link Link) predecessors {
	p := predecessors{files: map[string][]byte{}}
	for version := t.Version - 1; version >= 1; version-- {
		earlier, err := readLink(fsys, version)
		if err != nil {
			break
		}
		before, err := LoadTrust(earlier.Trust)
		if err != nil || before.Version != version {
			break
		}
		if _, _, err := link.follow(before); err != nil {
			break
		}
		earlier.addTo(p.files, version)
		p.trusts = append(p.trusts, before)
		link = earlier
	}
	return p
}

func (l Link) addTo(files map[string][]byte, version int64) {
	files[TrustFile(version)] = l.Trust
	for name, data := range l.Signatures {
		files[signaturesOf(version)+"/"+name] = data
	}
}

// checkLink refuses to publish a trust file that the hosts of the channel could not follow.
func (h *history) checkLink(o *PublishOptions) error {
	if h.tipRaw == nil {
		return nil
	}
	if next, links, err := Succeed(h.tipRaw.FS, o.Trust); err == nil && len(links) > 0 {
		return refuse(ErrPublishBlocked, "the channel's trust file has version %d, this commit's %d", next.Version, o.Trust.Version).
			withHint("publish from a commit that has the newest trust file")
	}
	if o.Trust.Version == 1 || len(o.TrustBytes) == 0 || h.before.known() {
		return nil
	}
	earlier, err := readLink(h.tipRaw.FS, o.Trust.Version-1)
	if err != nil {
		return nil // hosts of this channel have not seen a version before this one
	}
	before, err := LoadTrust(earlier.Trust)
	if err != nil || before.Fleet != o.Trust.Fleet || before.Threshold.Trust < 1 {
		return nil // nobody but the hosts' operators may replace that one
	}
	_, _, err = o.link().follow(before)
	if err == nil {
		return nil
	}
	return refuse(ErrPublishBlocked, "hosts would not follow the new trust file").because(err).
		withHint("signers of both files run muster trust next, and commit what it writes")
}

func (o *PublishOptions) link() Link { return Link{Trust: o.TrustBytes, Signatures: o.TrustSignatures} }
