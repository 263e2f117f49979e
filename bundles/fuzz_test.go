// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// FuzzRelease: what decodes is exactly its own canonical encoding and keeps every rule of a file list.
func FuzzRelease(f *testing.F) {
	doc, err := BuildRelease(&Trust{Fleet: "acme-prod", Channel: "stable", Epoch: 1}, Content{
		Files: map[string][]byte{"a.yaml": []byte("x"), "b/c.yaml": nil}, Commit: "1111111111111111111111111111111111111111",
		Issued: time.Unix(1e9, 0),
	}, 7, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"schema":"muster.dev/release/v1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRelease(data)
		if err != nil {
			if RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		again, err := canonical(r)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q decodes to something that encodes as %q (%v)", data, again, err)
		}
		if err := checkFileList(r.Files); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzFresh(f *testing.F) {
	doc, err := BuildFresh([]byte("x"), 7, time.Unix(1e9, 0), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, data []byte) {
		fresh, err := decodeFresh(data)
		if err != nil {
			if RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		if again, err := canonical(fresh); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q encodes as %q (%v)", data, again, err)
		}
	})
}

// FuzzSignature: no bytes but the signer's own make a stranger's document count.
func FuzzSignature(f *testing.F) {
	pair, err := GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	key, err := LoadKey(pair.Private, nil)
	if err != nil {
		f.Fatal(err)
	}
	good, other := []byte("the signed document"), []byte("another document")
	sig, err := key.Sign(f.Context(), good)
	if err != nil {
		f.Fatal(err)
	}
	signer := &Signer{Name: "x", public: key.public, id: key.id}
	f.Add(sig)
	f.Add([]byte(`{"base64Signature":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseSigBundle("f", data)
		if err != nil {
			if RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		if _, err := (cosignVerifier{}).verifyBundle(b, other, signer); err == nil {
			t.Fatalf("%q counts for a document that nobody signed", data)
		}
		_ = b.claims(good)
	})
}

// FuzzState: no bytes of a state or cache file are more than an error.
func FuzzState(f *testing.F) {
	payload, err := canonical(Seen{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame(stateMagic, payload))
	packed, err := pack("r", map[string][]byte{"a": []byte("x"), "b": nil}, &contents{})
	if err != nil {
		f.Fatal(err)
	}
	var written bytes.Buffer
	sum, err := packed.payload(&written)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(packed.header(sum), written.Bytes()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if raw, _, offset, err := unpack(data); err == nil {
			again, err := pack(raw.Revision, raw.FS.(memFS), &contents{})
			if err != nil || int64(len(data)) < offset || int64(len(data)) < int64(len(again.text)) {
				t.Fatalf("%q: %v", data, err)
			}
		} else if !errors.Is(err, ErrTorn) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if p, err := unframe(stateMagic, data); err == nil && !bytes.Equal(frame(stateMagic, p), data) {
			t.Fatalf("%q is not the frame of its payload", data)
		}
	})
}

// FuzzGitObject: no bytes are taken apart into anything but themselves, and no panic comes of any.
func FuzzGitObject(f *testing.F) {
	sig := "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
	head := "tree 1\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
	message := "Release\n\n" + ReleaseTrailer + "sha256:00\n"
	f.Add([]byte(head+"gpgsig "+strings.ReplaceAll(strings.TrimSpace(sig), "\n", "\n ")+"\n\n"+message), false)
	f.Add([]byte("object 1\ntype commit\ntag x\ntagger A <a@b> 1 +0000\n\n"+message+sig), true)
	f.Fuzz(func(t *testing.T, data []byte, tag bool) {
		o, err := parseGitObject(data, tag)
		if err != nil {
			return
		}
		if len(o.signed)+len(o.signature) > len(data)+1 || o.release == "" || !bytes.Contains(o.signed, []byte(o.release)) {
			t.Fatalf("%q: signed %q, signature %q, release %q", data, o.signed, o.signature, o.release)
		}
	})
}
