// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// BenchmarkRender lays out rulesets of exact paths as test/bench has them: half on files, half on programs.
func BenchmarkRender(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		var list []enforce.Rule
		for i := range n / 2 {
			list = append(list, block(fmt.Sprintf("/var/lib/muster-bench/rules/%d/file-%d", i%97, i)),
				rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, fmt.Sprintf("/usr/lib/muster-bench/%d/tool-%d", i%97, i)))
		}
		rs := rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				image, err := render(rs, testKey)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(image.Bytes))/1024, "KiB")
			}
		})
	}
}
