// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/fleet"
)

// TestVerifyReadsAsAHost: a release that is signed well and that a host would not take for what is in it is refused by the
// name that the host reports.
func TestVerifyReadsAsAHost(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	// A key that the list names, in the form of OpenSSH.
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	hosts := func(text string) map[string][]byte {
		return map[string][]byte{"a.yaml": bundlestest.Policy("a"), fleet.EnrolledFile: []byte(text)}
	}
	scoped := f.TrustYAML(t, 1, 1, "scope: {kinds: [KubeArmorHostPolicy]}\n")
	for name, c := range map[string]struct {
		files   map[string][]byte
		trust   string
		refusal string
		says    string
	}{
		"control":                   {bundlestest.Files(), "", "", "2 policies, 2 rules; the release does not say who may report"},
		"a list of hosts":           {hosts("web-1 namespaces=\"muster-report\" " + key + "\n"), "", "", "lists 1 keys that may report"},
		"a policy with an error":    {map[string][]byte{"a.yaml": []byte(badPolicy)}, "", "policy", "a.yaml:"},
		"no YAML":                   {map[string][]byte{"a.yaml": []byte("\t{")}, "", "policy", "a.yaml:1:"},
		"a doubled policy":          {map[string][]byte{"a.yaml": bundlestest.Policy("a"), "b.yaml": bundlestest.Policy("a")}, "", "policy", "duplicate policy"},
		"a list of hosts is broken": {hosts("web-1\n"), "", "policy", fleet.EnrolledFile},
		"a team does not enrol":     {hosts("web-1\n"), scoped, "", "does not say who may report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for path, data := range f.Sign(t, c.files, f.Doc(t, c.files, 1), "alice") {
				writeFile(t, filepath.Join(dir, "release", path), string(data))
			}
			if c.trust == "" {
				c.trust = f.TrustYAML(t, 1, 1, "")
			}
			trust := writeFile(t, filepath.Join(dir, "trust.yaml"), c.trust)
			out, err := runMuster(t, "verify", filepath.Join(dir, "release"), "--trust", trust, "-o", "json")
			var res verifyResult
			if jsonErr := json.NewDecoder(strings.NewReader(out)).Decode(&res); jsonErr != nil {
				t.Fatalf("%v\n%s", jsonErr, out)
			}
			last := res.Checks[len(res.Checks)-1]
			if res.Refusal != c.refusal || res.Accepted != (c.refusal == "") || (err == nil) != res.Accepted || last.OK != res.Accepted || !strings.Contains(last.Evidence, c.says) {
				t.Errorf("%v: %s", err, out)
			}
			text, _ := runMuster(t, "verify", filepath.Join(dir, "release"), "--trust", trust)
			if !strings.Contains(text, "policies and hosts") || c.refusal != "" && !strings.Contains(text, "refused: "+c.refusal+"\n") {
				t.Errorf("%s", text)
			}
		})
	}
}
