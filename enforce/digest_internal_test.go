// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"bytes"
	"hash"
	"testing"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"github.com/muster-fleet/muster/policies"
)

// keep is a hash that keeps what is written.
type keep struct {
	hash.Hash
	bytes.Buffer
}

func (k *keep) Write(p []byte) (int, error) { return k.Buffer.Write(p) }
func (k *keep) Reset()                      { k.Buffer.Reset() }

// TestCanonical compares the digest's own writer with an implementation of RFC 8785.
func TestCanonical(t *testing.T) {
	t.Parallel()
	full := Rule{
		Policy: policies.ID{Kind: policies.KindContainer, Namespace: "ns", Name: "n"},
		Rule: policies.Rule{
			Index: 3, Class: policies.ClassProcess, Action: policies.ActionBlock,
			Object:    policies.Object{Kind: policies.ObjectSyscall, Value: "/\"\\\u2028é<&>\x01\n\x7f", Recursive: true, Syscalls: []string{"a", "b"}, Detail: "{}"},
			OwnerOnly: true, ReadOnly: true, NoTerminal: true, HasArgs: true, AllowedArgs: []string{"", "x"},
			Severity: 10, Tags: []string{"t"}, Message: "m\t\b\f\r",
		},
		Objects: []string{"/a", "/\xff"}, Sources: []string{"/b"}, DryRun: true, Version: "v",
	}
	for _, rs := range []*Ruleset{
		{},
		{Subject: Host, Mode: ModeEnforce, Postures: Postures{File: PostureBlock, Network: PostureAudit, Capabilities: PostureAudit}},
		{Subject: Host, Mode: ModeAudit, Rules: []Rule{full, {}, full}},
		{Subject: Host, Mode: ModeEnforce, Visible: []policies.Class{policies.ClassFile, policies.ClassProcess}},
	} {
		k := &keep{}
		w := canonicalWriter{hash: k}
		w.ruleset(rs)
		w.flush(0)
		want, err := jsoncanonicalizer.Transform(k.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, k.Bytes())
		}
		if !bytes.Equal(want, k.Bytes()) {
			t.Errorf("not canonical:\n%s\n%s", k.Bytes(), want)
		}
	}
}

// TestPriority: a priority orders as ranks do, and Deny wins at equal rank.
func TestPriority(t *testing.T) {
	t.Parallel()
	var ranks []Rank
	for _, source := range []bool{false, true} {
		for object := RankUnranked; object <= RankExact; object++ {
			for _, length := range []int{0, 1, 255, 256, 4095, 4096} {
				for _, flat := range []bool{false, true} {
					ranks = append(ranks, Rank{source, object, length, flat})
				}
			}
		}
	}
	for _, a := range ranks {
		if priority(a, Deny) <= priority(a, Permit) || priority(a, Permit) == 0 {
			t.Errorf("%v: Deny does not win", a)
		}
		for _, b := range ranks {
			if a.Compare(b) > 0 && priority(a, Permit) <= priority(b, Deny) {
				t.Errorf("%v is more specific than %v but has no greater priority", a, b)
			}
		}
	}
}
