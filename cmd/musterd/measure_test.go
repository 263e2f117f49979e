// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

const (
	measuredIssuer  = "https://issuer.acme.example"
	measuredSubject = "https://git.acme.example/policy/.ci/publish.yml@refs/heads/main"
)

// manyPolicies are 10,000 policies of about 1,400 bytes each, one of them named after version.
func manyPolicies(version string) map[string][]byte {
	files := map[string][]byte{}
	for n := range 10_000 {
		name := fmt.Sprintf("p%05d", n)
		if n == 0 {
			name += version
		}
		files[fmt.Sprintf("team%02d/%05d.yaml", n%50, n)] = append(bundlestest.Policy(name), []byte("# "+strings.Repeat("x", 1150)+"\n")...)
	}
	return files
}

// cpu is the CPU time of a process in seconds.
func cpu(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks float64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return ticks / 100
}

// memory is a line of /proc/PID/status in MB: VmHWM is the peak, VmRSS what is resident.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n / 1024
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// TestLargeRelease measures an agent of its own with 10,000 policies (14 MB): its start without anything, its start with
// the release in the cache, and one changed policy, with signatures by a key and by a certificate.
func TestLargeRelease(t *testing.T) {
	sigstore := bundlestest.NewSigstore(t, bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT)
	f := bundlestest.New(t, "alice")
	keyed := func(files map[string][]byte, sequence int64) map[string][]byte {
		return f.Sign(t, files, f.Doc(t, files, sequence), "alice")
	}
	keyless := func(files map[string][]byte, sequence int64) map[string][]byte {
		doc := f.Doc(t, files, sequence)
		out := maps.Clone(files)
		out[bundles.ReleasePath] = doc
		out[bundles.SignatureFile("ci")] = sigstore.Bundle(t, doc, bundlestest.Signing{Issuer: measuredIssuer, Subject: measuredSubject})
		return out
	}
	program := filepath.Join(t.TempDir(), "musterd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		transport, how string
		sign           func(map[string][]byte, int64) map[string][]byte
		trust          string
	}{
		{"git", "key", keyed, f.TrustYAML(t, 1, 1, "")},
		{"oci", "key", keyed, f.TrustYAML(t, 1, 1, "")},
		{"oci", "certificate", keyless, (&bundlestest.Fleet{}).TrustYAML(t, 1, 1, sigstore.Keyless(t, "ci", measuredIssuer, measuredSubject))},
	} {
		t.Run(c.transport+" "+c.how, func(t *testing.T) {
			ch, url, _ := channelOverHTTP(t, c.transport)
			dir := t.TempDir()
			push(t, ch, keyed(map[string][]byte{"a.yaml": bundlestest.Policy("a")}, 1))
			if c.how == "certificate" {
				push(t, ch, keyless(map[string][]byte{"a.yaml": bundlestest.Policy("a")}, 2))
			}
			// The bars are those of a computer that does nothing else.
			say := func(what string, pid int, before, seconds float64, megabytes int) {
				t.Helper()
				took, peak := cpu(t, pid)-before, memory(t, pid, "VmHWM")
				t.Logf("%-46s %5.2f s CPU, peak %3d MB, then %3d MB", what, took, peak, memory(t, pid, "VmRSS"))
				if took > seconds || peak > megabytes {
					t.Errorf("%s: more than %.1f s or %d MB", what, seconds, megabytes)
				}
			}
			t.Run("first", func(t *testing.T) {
				pid, client := startProgram(t, program, dir, url, []byte(c.trust))
				synced(t, client)
				say("start, one policy", pid, 0, 0.5, 45)
				push(t, ch, c.sign(manyPolicies(""), 5))
				before := cpu(t, pid)
				synced(t, client)
				say("10,000 new policies, fetched to planned", pid, before, 4, 150)
				before = cpu(t, pid)
				if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // peak begins anew
					t.Fatal(err)
				}
				push(t, ch, c.sign(manyPolicies("b"), 6))
				if got := synced(t, client); got.Report.Releases[0].Sequence != 6 {
					t.Fatalf("%+v", got)
				}
				say("one of them changed, fetched to planned", pid, before, 0.5, 100)
			})
			t.Run("again", func(t *testing.T) {
				pid, client := startProgram(t, program, dir, url, []byte(c.trust))
				synced(t, client)
				say("start with them in the cache, and one look", pid, 0, 4, 150)
			})
		})
	}
}
