// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/test/conformance"
)

// supported tells whether this version promises a scenario: on the host, in the families of policies,
// ranks, life cycle and mistakes, with process and file rules only and without pts and allowedArgs.
func supported(t *testing.T, s *conformance.Scenario) bool {
	t.Helper()
	if s.Subject != conformance.Host || !strings.Contains("PRLX", s.ID[:1]) {
		return false
	}
	documents := slices.Clone(s.Policies)
	for _, st := range s.Steps {
		if st.Apply != nil {
			documents = append(documents, *st.Apply...)
		}
	}
	texts := []string{s.Document}
	for i := range documents {
		text, err := yaml.Marshal(&documents[i])
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, key := range []string{"network", "capabilities", "syscalls", "presets", "egress", "ingress", "pts", "allowedArgs"} {
		for _, text := range texts {
			if strings.Contains(text, key+":") {
				return false
			}
		}
	}
	return true
}

func load(t *testing.T) (list []*conformance.Scenario, promised map[string]bool) {
	t.Helper()
	all, err := conformance.Load("../scenarios")
	if err != nil {
		t.Fatal(err)
	}
	promised = map[string]bool{}
	for _, s := range all {
		if supported(t, s) {
			promised[s.ID] = true
			list = append(list, s)
		}
	}
	return list, promised
}

// TestPromised: the number that is promised is known, so that nothing drops out unnoticed.
func TestPromised(t *testing.T) {
	t.Parallel()
	if list, _ := load(t); len(list) != 41 {
		for _, s := range list {
			t.Log(s.ID, s.Title)
		}
		t.Errorf("%d scenarios are promised, want 41", len(list))
	}
}
