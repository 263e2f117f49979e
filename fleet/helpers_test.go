// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/enforce"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// needTool skips without the tool, except where everything must be there.
func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is needed and not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// testKey is a host key that is the same in every run.
func testKey(t testing.TB, id string) ssh.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte("key of " + id))
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publicLine(k ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(k)))
}

func enrol(t testing.TB, ids ...string) *AllowedSigners {
	t.Helper()
	var b bytes.Buffer
	for _, id := range ids {
		fmt.Fprintf(&b, "%s %s\n", id, publicLine(testKey(t, id).PublicKey()))
	}
	a, err := ParseAllowedSigners("hosts.allowed_signers", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testReport(id string, sequence int64) Report {
	return Report{
		Fleet: "lab", Host: id, Sequence: sequence, Time: testNow, Agent: "test", Kernel: "6.12", Backend: "bpflsm",
		LSMs: []string{"capability", "bpf"}, Mode: enforce.ModeEnforce, State: StateEnforced,
		Releases: []ReportRelease{{Level: "enforce", Name: "lab", Channel: "stable", Epoch: 1, Sequence: 7, Digest: "sha256:00"}},
	}
}

// signed makes what a host would push.
func signed(t testing.TB, r Report, change ...func(*Report)) SignedReport {
	t.Helper()
	for _, c := range change {
		c(&r)
	}
	b, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return signedBytes(t, r.Host, b)
}

func signedBytes(t testing.TB, id string, b []byte) SignedReport {
	t.Helper()
	sig, err := Sign(testKey(t, id), NamespaceReport, b)
	if err != nil {
		t.Fatal(err)
	}
	return SignedReport{Ref: id, Report: b, Signature: sig}
}
