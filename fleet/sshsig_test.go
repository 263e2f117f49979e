// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles/sshsig"
)

// What we sign, stock ssh-keygen verifies, and the other way round.
func TestStockSSHKeygen(t *testing.T) {
	t.Parallel()
	tool := needTool(t, "ssh-keygen")
	dir := t.TempDir()
	path := filepath.Join(dir, "host.key")
	key, err := LoadOrCreateHostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte(`{"host":"web-1"}`)
	allowed := filepath.Join(dir, "hosts.allowed_signers")
	write(t, allowed, key.AllowedLine("web-1"))

	sig, err := Sign(key, NamespaceReport, message)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "report.json.sig"), string(sig))
	run(t, message, tool, "-Y", "verify", "-f", allowed, "-I", "web-1", "-n", NamespaceReport, "-s", filepath.Join(dir, "report.json.sig"))
	out := run(t, message, tool, "-Y", "find-principals", "-f", allowed, "-s", filepath.Join(dir, "report.json.sig"))
	if strings.TrimSpace(out) != "web-1" {
		t.Errorf("find-principals: %q", out)
	}

	theirs := run(t, message, tool, "-Y", "sign", "-f", path, "-n", NamespaceReport, "-")
	got, err := Verify([]byte(theirs), NamespaceReport, message)
	if err != nil {
		t.Fatalf("what ssh-keygen signed: %v\n%s", err, theirs)
	}
	if !bytes.Equal(got.Marshal(), key.PublicKey().Marshal()) {
		t.Error("another key")
	}
	if theirs != string(sig) { // ed25519 is deterministic
		t.Errorf("ours and ssh-keygen's signatures differ:\n%s%s", sig, theirs)
	}
}

// Every key type that is accepted goes both ways, and so does a certificate.
func TestStockSSHKeygenKeyTypes(t *testing.T) {
	t.Parallel()
	tool := needTool(t, "ssh-keygen")
	for _, args := range [][]string{
		{"-t", "ed25519"}, {"-t", "ecdsa", "-b", "256"}, {"-t", "ecdsa", "-b", "384"}, {"-t", "rsa", "-b", "3072"},
	} {
		t.Run(strings.Join(args[1:], "-"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "k")
			run(t, nil, tool, append([]string{"-q", "-N", "", "-f", path}, args...)...)
			key, err := LoadHostKey(path)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("roll")
			sig, err := Sign(key, NamespaceRoll, message)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "sig"), string(sig))
			write(t, filepath.Join(dir, "allowed"), key.AllowedLine("c-1"))
			run(t, message, tool, "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "c-1", "-n", NamespaceRoll, "-s", filepath.Join(dir, "sig"))
			theirs := run(t, message, tool, "-Y", "sign", "-f", path, "-n", NamespaceRoll, "-")
			if _, err := Verify([]byte(theirs), NamespaceRoll, message); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStockSSHKeygenCertificate(t *testing.T) {
	t.Parallel()
	tool := needTool(t, "ssh-keygen")
	dir := t.TempDir()
	path, ca := filepath.Join(dir, "host.key"), filepath.Join(dir, "ca")
	if _, err := LoadOrCreateHostKey(path); err != nil {
		t.Fatal(err)
	}
	run(t, nil, tool, "-q", "-N", "", "-t", "ed25519", "-f", ca)
	pub := run(t, nil, tool, "-y", "-f", path)
	write(t, path+".pub", pub)
	run(t, nil, tool, "-q", "-s", ca, "-I", "web-1", "-n", "web-1.example.org", "-V", "20260101Z:20260201Z", path+".pub")
	key, err := LoadOrCreateHostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := key.PublicKey().(*ssh.Certificate); !ok {
		t.Fatal("the certificate beside the key is not used")
	}
	caPub, err := os.ReadFile(ca + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	lines := `*.example.org cert-authority,namespaces="muster-report" ` + string(caPub)
	write(t, filepath.Join(dir, "allowed"), lines)
	message := []byte("report")
	sig, err := Sign(key, NamespaceReport, message)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sig"), string(sig))
	run(t, message, tool, "-Y", "verify", "-Overify-time=20260102Z", "-f", filepath.Join(dir, "allowed"),
		"-I", "web-1.example.org", "-n", NamespaceReport, "-s", filepath.Join(dir, "sig"))

	allowed, err := ParseAllowedSigners("allowed", []byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(sig, NamespaceReport, message)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"good":               allowed.Check("web-1.example.org", got, NamespaceReport, testNow),
		"other host":         not(allowed.Check("web-2.example.org", got, NamespaceReport, testNow)),
		"outside the CA":     not(allowed.Check("web-1", got, NamespaceReport, testNow)),
		"expired":            not(allowed.Check("web-1.example.org", got, NamespaceReport, testNow.AddDate(1, 0, 0))),
		"other namespace":    not(allowed.Check("web-1.example.org", got, NamespaceRoll, testNow)),
		"without its cert":   not(allowed.Check("web-1.example.org", sshsig.PlainKey(got), NamespaceReport, testNow)),
		"nobody is enrolled": not((*AllowedSigners)(nil).Check("web-1.example.org", got, NamespaceReport, testNow)),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errAccepted = errors.New("accepted")

func not(err error) error {
	if err == nil {
		return errAccepted
	}
	if !errors.Is(err, ErrNotEnrolled) {
		return err
	}
	return nil
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	key, message := testKey(t, "web-1"), []byte("message")
	good, err := Sign(key, NamespaceReport, message)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	smallSigner, err := ssh.NewSignerFromKey(small)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(smallSigner, NamespaceReport, message); !errors.Is(err, ErrSignatureAlgorithm) {
		t.Errorf("RSA 2048 signs: %v", err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecSigner, err := ssh.NewSignerFromKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Sign(ecSigner, NamespaceRoll, message)
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	for name, c := range map[string]struct {
		sig, message, namespace string
		want                    error
	}{
		"other message":    {text, "massage", NamespaceReport, ErrSignatureInvalid},
		"other namespace":  {string(other), "message", NamespaceReport, ErrSignatureNamespace},
		"empty namespace":  {text, "message", "", ErrSignatureNamespace},
		"empty":            {"", "message", NamespaceReport, ErrSignatureMalformed},
		"no end":           {strings.Replace(text, "-----END SSH SIGNATURE-----", "", 1), "message", NamespaceReport, ErrSignatureMalformed},
		"text after":       {text + "more\n", "message", NamespaceReport, ErrSignatureMalformed},
		"text before":      {"more\n" + text, "message", NamespaceReport, ErrSignatureMalformed},
		"not base64":       {strings.Replace(text, "U1NI", "U1N*", 1), "message", NamespaceReport, ErrSignatureMalformed},
		"other magic":      {strings.Replace(text, "U1NI", "U1NJ", 1), "message", NamespaceReport, ErrSignatureMalformed},
		"bomb":             {"-----BEGIN SSH SIGNATURE-----\n" + strings.Repeat("A", 1<<20) + "\n" + "-----END SSH SIGNATURE-----", "message", NamespaceReport, ErrSignatureMalformed},
		"cut in the blob":  {armored(t, text, func(b []byte) []byte { return b[:len(b)-20] }), "message", NamespaceReport, ErrSignatureMalformed},
		"grown":            {armored(t, text, func(b []byte) []byte { return append(b, 0) }), "message", NamespaceReport, ErrSignatureMalformed},
		"signature bit":    {armored(t, text, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), "message", NamespaceReport, ErrSignatureInvalid},
		"version 2":        {armored(t, text, func(b []byte) []byte { b[9] = 2; return b }), "message", NamespaceReport, ErrSignatureMalformed},
		"hash downgraded":  {armored(t, text, func(b []byte) []byte { return bytes.Replace(b, []byte("sha512"), []byte("sha256"), 1) }), "message", NamespaceReport, ErrSignatureInvalid},
		"hash not known":   {armored(t, text, func(b []byte) []byte { return bytes.Replace(b, []byte("sha512"), []byte("md5aaa"), 1) }), "message", NamespaceReport, ErrSignatureAlgorithm},
		"windows newlines": {strings.ReplaceAll(text, "\n", "\r\n"), "message", NamespaceReport, nil},
	} {
		if _, err := Verify([]byte(c.sig), c.namespace, []byte(c.message)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func armored(t *testing.T, text string, change func([]byte) []byte) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no armor")
	}
	block.Bytes = change(block.Bytes)
	return string(pem.EncodeToMemory(block))
}

func TestHostKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "host.key")
	first, err := LoadOrCreateHostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	again, err := LoadOrCreateHostKey(path)
	if err != nil || again.Fingerprint() != first.Fingerprint() {
		t.Errorf("a second start has another key: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateHostKey(path); !errors.Is(err, ErrHostKey) {
		t.Errorf("a key that others can read: %v", err)
	}
	write(t, path+"2", "garbage")
	if _, err := LoadOrCreateHostKey(path + "2"); !errors.Is(err, ErrHostKey) {
		t.Errorf("a broken key must never be replaced: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}
