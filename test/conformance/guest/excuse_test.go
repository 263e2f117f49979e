// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"testing"

	"github.com/muster-fleet/muster/test/conformance"
)

const twoRules = `
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: p}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths:
      - {path: /no/such/a}
    matchPatterns:
      - {pattern: /no/such/b*}
  capabilities:
    matchCapabilities:
      - {capability: sys_chroot, fromSource: [{path: /opt/t/bin/src-a}]}
  action: Block
`

// TestExcuses: a gap excuses the steps that its own rule decides, and no others.
func TestExcuses(t *testing.T) {
	t.Parallel()
	policy := "KubeArmorHostPolicy/p"
	for _, c := range []struct {
		name    string
		gap     conformance.Gap
		step    conformance.Step
		excused bool
	}{
		{"its own rule", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Do: "read /no/such/b1"}, true},
		{"another rule", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Do: "read /no/such/a"}, false},
		{"no rule", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Do: "read /no/such/c"}, false},
		{"the whole policy", conformance.Gap{Policy: policy, Rule: -1}, conformance.Step{Do: "read /no/such/a"}, true},
		{"another policy", conformance.Gap{Policy: "KubeArmorHostPolicy/q", Rule: -1}, conformance.Step{Do: "read /no/such/a"}, false},
		{"its second name", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Do: "rename /no/such/c /no/such/b2"}, true},
		{"capability", conformance.Gap{Policy: policy, Rule: 2}, conformance.Step{Do: "cap sys_chroot"}, true},
		{"another capability", conformance.Gap{Policy: policy, Rule: 2}, conformance.Step{Do: "cap net_raw"}, false},
		{"another class", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Do: "exec /no/such/b1"}, false},
		{"a shell line that names no event", conformance.Gap{Policy: policy, Rule: 1}, conformance.Step{Sh: "true"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := &execution{
				files: map[string][]byte{"p.yaml": []byte(twoRules)}, posture: conformance.AuditPosture(),
				excused: []conformance.Gap{c.gap},
			}
			if got := e.excuses(&c.step); got != c.excused {
				t.Errorf("excused %v", got)
			}
		})
	}
}

// TestFamilyGrows: grandchildren belong, strangers do not, and a number that comes back is another process.
func TestFamilyGrows(t *testing.T) {
	t.Parallel()
	m := family{10: true}
	m.grow([]fork{{10, 11}, {11, 12}, {5, 13}, {13, 14}, {5, 12}})
	for pid, want := range map[int]bool{10: true, 11: true, 12: false, 13: false, 14: false} {
		if m[pid] != want {
			t.Errorf("%d: %v", pid, m[pid])
		}
	}
}

// TestAnswerName: a query is answered with its own question, whatever is asked, and rubbish is not.
func TestAnswerName(t *testing.T) {
	t.Parallel()
	query := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01")
	reply := answerName(query)
	if len(reply) != len(query)+16 || string(reply[12:len(query)]) != string(query[12:]) || reply[2] != 0x81 {
		t.Errorf("%x", reply)
	}
	for n := range query {
		if answerName(query[:n]) != nil {
			t.Errorf("%d bytes are answered", n)
		}
	}
}

// TestFixtures: what SCENARIOS lists is there, anew each time.
func TestFixtures(t *testing.T) {
	t.Parallel()
	checkFixtures(t, t.TempDir()+"/t")
}
