// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// signatures are attacks of somebody who has no key, or one too few.
func signatures() []attack {
	row := func(name, want string, play func(w *world) map[string][]byte) attack {
		return attack{area: "Signatures", name: name, want: want, play: play}
	}
	crowd := row("good signatures under seventy others", "limits", func(w *world) map[string][]byte {
		files := w.bad()
		for n := range 70 {
			files[bundles.SignatureFile(fmt.Sprintf("x%d", n))] = []byte("{}")
		}
		return files
	})
	crowd.only = "git" // of referrers the first are taken, and no more
	alice, bob := bundles.SignatureFile("alice"), bundles.SignatureFile("bob")
	return []attack{
		row("a file altered after signing", "altered", func(w *world) map[string][]byte {
			return with(w.bad(), "own.yaml", policy("own", "/etc/other")["own.yaml"])
		}),
		row("a listed file left out", "altered", func(w *world) map[string][]byte { return with(w.bad(), "own.yaml", nil) }),
		row("the document altered after signing", "altered", func(w *world) map[string][]byte {
			return with(w.release(right(first), first+1, w.sign...), bundles.ReleasePath, w.doc(wrong(), first+1))
		}),
		row("signatures of the release before", "altered", func(w *world) map[string][]byte {
			old := w.release(right(first), first, w.sign...)
			return with(with(w.bad(), alice, old[alice]), bob, old[bob])
		}),
		row("no signature", "unsigned", func(w *world) map[string][]byte { return w.release(wrong(), first+1) }),
		row("signed by strangers", "too-few-signers", func(w *world) map[string][]byte { return w.release(wrong(), first+1, "carol", "mallory") }),
		row("one of two signers", "too-few-signers", func(w *world) map[string][]byte { return w.release(wrong(), first+1, "alice") }),
		row("one signer under two names", "too-few-signers", func(w *world) map[string][]byte {
			files := w.release(wrong(), first+1, "alice")
			return with(files, bob, files[alice])
		}),
		row("a stranger's signature with alice's key hint", "too-few-signers", func(w *world) map[string][]byte {
			return with(w.bad(), alice, w.hinted(bundlestest.Bundle(w.t, w.fleet.Keys["mallory"], w.doc(wrong(), first+1)), "alice"))
		}),
		row("a key signed another document", "altered", func(w *world) map[string][]byte {
			files := w.bad()
			for _, name := range w.sign { // what freshness is about says nothing about policy
				files[bundles.SignatureFile(name)] = bundlestest.Bundle(w.t, w.fleet.Keys[name], files[bundles.FreshPath])
			}
			return files
		}),
		row("legacy bundles", "legacy-bundle", func(w *world) map[string][]byte {
			legacy := []byte(`{"base64Signature":"MEUC","cert":""}`)
			return with(with(w.bad(), alice, legacy), bob, legacy)
		}),
		row("attestations for signatures", "dsse", func(w *world) map[string][]byte {
			envelope := []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},` +
				`"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEUC"}]}}`)
			return with(with(w.bad(), alice, envelope), bob, envelope)
		}),
		row("an attestation hidden beside a signature", "dsse", func(w *world) map[string][]byte {
			files := w.bad()
			for _, path := range []string{alice, bob} {
				files[path] = edited(w, files[path], func(b map[string]any) { b["dsseEnvelope"] = map[string]any{} })
			}
			return files
		}),
		crowd,
		{
			area: "Signatures", name: "a revoked key", want: "revoked",
			setup: func(w *world) {
				v := w.firstTrust()
				v.Signers, v.Extra = []string{"alice", "bob", "carol", "mallory"}, "revoked: {keys: ["+w.fleet.Keys["carol"].ID()+", "+w.fleet.Keys["mallory"].ID()+"]}\n"
				w.trust = w.fleet.YAML(w.t, v)
			},
			play: func(w *world) map[string][]byte { return w.release(wrong(), first+1, "carol", "mallory") },
		},
		{
			area: "Signatures", name: "a revoked release", want: "revoked",
			setup: func(w *world) {
				v := w.firstTrust()
				issued := time.Now()
				digest := bundles.DigestOf(w.docOf(wrong(), first+1, issued))
				v.Extra = "revoked: {releases: [" + digest + "]}\n"
				w.trust = w.fleet.YAML(w.t, v)
				w.revoked = func() []byte { return w.docOf(wrong(), first+1, issued) }
			},
			play: func(w *world) map[string][]byte { return w.signed(wrong(), w.revoked(), first+1, w.sign...) },
		},
	}
}

// hinted is a bundle that says it is by another key.
func (w *world) hinted(bundle []byte, name string) []byte {
	return edited(w, bundle, func(b map[string]any) {
		hint := base64.StdEncoding.EncodeToString([]byte(w.fleet.Keys[name].ID()))
		b["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": hint}}
	})
}

// edited changes a document as JSON.
func edited(w *world, text []byte, change func(doc map[string]any)) []byte {
	w.t.Helper()
	var doc map[string]any
	w.must(json.Unmarshal(text, &doc))
	change(doc)
	out, err := json.Marshal(doc)
	w.must(err)
	return out
}

const (
	issuer  = "https://issuer.acme.example"
	subject = "https://git.acme.example/policy/.ci/publish.yml@refs/heads/main"
)

// keyless are attacks on a fleet whose one signer is an identity of a private certificate authority.
func keyless() []attack {
	all := []bundlestest.Part{bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT}
	row := func(name, want string, parts []bundlestest.Part, change func(w *world, by *bundlestest.Signing)) attack {
		return attack{
			area: "Keyless signatures", name: name, want: want,
			setup: func(w *world) { w.trustIdentity(parts) },
			play: func(w *world) map[string][]byte {
				by := w.identity()
				w.sigstore.before = w.sigstore.now
				change(w, &by)
				doc := w.doc(wrong(), first+1)
				files := w.signed(wrong(), doc, first+1)
				files[bundles.SignatureFile("ci")] = w.sigstore.now.Bundle(w.t, doc, by)
				w.sigstore.now = w.sigstore.before
				return files
			},
		}
	}
	late := func(_ *world, by *bundlestest.Signing) { by.Witnessed = by.At.Add(time.Hour) }
	return []attack{
		row("another workflow of the same repository", "wrong-identity", all, func(_ *world, by *bundlestest.Signing) { by.Subject += "-copy" }),
		row("the same subject by another issuer", "wrong-identity", all, func(_ *world, by *bundlestest.Signing) { by.Issuer = "https://issuer.evil.example" }),
		row("a certificate for two subjects", "wrong-identity", all, func(_ *world, by *bundlestest.Signing) { by.Also = "mallory@example.com" }),
		row("not in the transparency log", "not-logged", all, func(_ *world, by *bundlestest.Signing) { by.NoLog = true }),
		row("logged an hour after the certificate ended", "not-logged", all[:1], late),
		row("stamped an hour after the certificate ended", "untrusted-certificate", all[1:2], late),
		row("nobody says when it was signed", "untimed", all[1:2], func(_ *world, by *bundlestest.Signing) { by.NoTime = true }),
		row("a certificate that was not logged", "untrusted-certificate", all, func(_ *world, by *bundlestest.Signing) { by.NoSCT = true }),
		row("the same names from another deployment", "not-logged", all, func(w *world, _ *bundlestest.Signing) { w.sigstore.now = bundlestest.NewSigstore(w.t, all...) }),
		row("an attestation by the right identity", "dsse", all, func(_ *world, by *bundlestest.Signing) { by.Envelope = true }),
	}
}

// deployment is whose certificates sign now.
type deployment struct{ now, before *bundlestest.Sigstore }

func (w *world) identity() bundlestest.Signing {
	return bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()}
}

// trustIdentity makes the fleet's one signer an identity, who signs good releases.
func (w *world) trustIdentity(parts []bundlestest.Part) {
	w.t.Helper()
	w.sigstore = &deployment{now: bundlestest.NewSigstore(w.t, parts...)}
	w.trust = []byte((&bundlestest.Fleet{}).TrustYAML(w.t, 1, 1, w.sigstore.now.Keyless(w.t, "ci", issuer, subject)))
	w.sign = nil
	w.extra = func(files map[string][]byte) {
		files[bundles.SignatureFile("ci")] = w.sigstore.now.Bundle(w.t, files[bundles.ReleasePath], w.identity())
	}
}
