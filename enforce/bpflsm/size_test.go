// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/enforce"
)

// TestImageSize holds what 10,000 exact paths may cost: the kernel keeps the image in memory that is not
// swapped, and an apply swaps a new one in.
func TestImageSize(t *testing.T) {
	t.Parallel()
	var list []enforce.Rule
	for i := range 10_000 {
		list = append(list, block(fmt.Sprintf("/srv/some/directory-%d/with-%x/file-%d", i%100, i*7919, i)))
	}
	image, err := render(rules(enforce.ModeEnforce, enforce.PostureAudit, list...), testKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB", len(image.Bytes)>>10)
	if limit := 8 << 20; len(image.Bytes) > limit {
		t.Errorf("image of %d bytes, limit %d", len(image.Bytes), limit)
	}
}

func TestRenderingIsDeterministic(t *testing.T) {
	t.Parallel()
	rs := rules(enforce.ModeEnforce, enforce.PostureAudit, block("/a"), block("/b", "/bin/x"), block("/c/d", "/bin/y", "/bin/x"))
	first, err := render(rs, testKey)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := render(rs, testKey)
		if err != nil {
			t.Fatal(err)
		}
		if string(again.Bytes) != string(first.Bytes) {
			t.Fatal("two renderings of one ruleset differ")
		}
	}
}

// TestSipHash is the reference's own vector: key 00..0f, message 00..0e.
func TestSipHash(t *testing.T) {
	t.Parallel()
	message := make([]byte, 15)
	for i := range message {
		message[i] = byte(i)
	}
	if got := testKey.hash(string(message)); got != 0xa129ca6149be45e5 {
		t.Errorf("%#x", got)
	}
}
