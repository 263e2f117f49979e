// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/sshsig"
)

// signer is somebody who signs commits.
type signer struct {
	key     ssh.Signer
	file    string
	allowed string // its line of allowed signers
}

func newSigner(t *testing.T, name string) *signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{file: filepath.Join(t.TempDir(), name)}
	if s.key, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file, pem.EncodeToMemory(block), 0o600)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key.PublicKey())))
	write(t, s.file+".pub", []byte(line+"\n"), 0o644)
	s.allowed = name + `@example.com namespaces="git" ` + line
	return s
}

func (s *signer) sign(payload []byte) ([]byte, error) { return sshsig.Sign(s.key, "git", payload) }

// gated is a fleet whose trust asks for signed commits.
func gated(t *testing.T, f *bundlestest.Fleet, gate string) *bundles.Trust {
	t.Helper()
	return f.Trust(t, 1, 1, "commits:\n"+gate)
}

func sshGate(lines ...string) string {
	return "  allowedSigners: |\n    " + strings.Join(lines, "\n    ") + "\n"
}

// signedRelease publishes release 1 with the channel's commits signed by sign.
func signedRelease(t *testing.T, f *bundlestest.Fleet, repo string, sign func([]byte) ([]byte, error)) {
	t.Helper()
	ch, err := git.OpenChannel(git.ChannelConfig{URL: repo, Channel: "stable", SignCommit: sign})
	if err != nil {
		t.Fatal(err)
	}
	text := f.TrustYAML(t, 1, 1, "")
	_, err = bundles.Publish(t.Context(), ch, bundles.PublishOptions{
		Trust: bundlestest.Load(t, []byte(text)), TrustBytes: []byte(text), Content: content("a"),
		Keys: []*bundles.KeySigner{f.Keys["alice"]}, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func judge(t *testing.T, repo string, trust *bundles.Trust) (*bundles.Verified, error) {
	t.Helper()
	return bundles.Verify(brought(t, source(t, git.Config{URL: repo})), trust, bundles.Seen{}, time.Now())
}

// TestSignedCommits publishes with a signing key; stock git and the host agree about who signed.
func TestSignedCommits(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	ann, bert := newSigner(t, "ann"), newSigner(t, "bert")
	repo := bare(t)
	signedRelease(t, f, repo, ann.sign)
	allowed := filepath.Join(t.TempDir(), "allowed")
	write(t, allowed, []byte(ann.allowed+"\n"), 0o644)
	run(t, repo, "-c", "gpg.format=ssh", "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", "muster/stable")
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"by her":             {[]string{ann.allowed}, ""},
		"by one of two":      {[]string{bert.allowed, ann.allowed}, ""},
		"by somebody else":   {[]string{bert.allowed}, "unsigned-commit"},
		"valid now":          {[]string{strings.Replace(ann.allowed, `"git"`, `"git",valid-after="20200101Z",valid-before="20990101Z"`, 1)}, ""},
		"not valid any more": {[]string{strings.Replace(ann.allowed, `"git"`, `"git",valid-before="20200101Z"`, 1)}, "unsigned-commit"},
		"not valid yet":      {[]string{strings.Replace(ann.allowed, `"git"`, `"git",valid-after="20990101Z"`, 1)}, "unsigned-commit"},
		"for files only":     {[]string{strings.Replace(ann.allowed, `"git"`, `"file"`, 1)}, "unsigned-commit"},
	} {
		v, err := judge(t, repo, gated(t, f, sshGate(c.lines...)))
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s: %q (%v), wanted %q", name, got, err, c.want)
		}
		if err == nil {
			again, err := v.Again(gated(t, f, sshGate(c.lines...)), bundles.Seen{}, time.Now())
			if err != nil || again.Digest() != v.Digest() {
				t.Errorf("%s: out of memory: %v", name, err)
			}
		}
	}
	plain := bare(t)
	signedRelease(t, f, plain, nil)
	if _, err := judge(t, plain, gated(t, f, sshGate(ann.allowed))); bundles.RefusalName(err) != "unsigned-commit" {
		t.Errorf("an unsigned commit: %v", err)
	}
}

// TestStockGitSigns: commits and tags that people sign with git, by SSH and by OpenPGP keys.
func TestStockGitSigns(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	ann := newSigner(t, "ann")
	gpg, err := exec.LookPath("gpg")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	for _, by := range []string{"ssh", "openpgp"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			gate := sshGate(ann.allowed)
			config := []string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + ann.file}
			var env []string
			if by == "openpgp" {
				if gpg == "" {
					if os.Getenv("CI") != "" {
						t.Fatal("gpg is not installed")
					}
					t.Skip("gpg is not installed (test/setup.sh)")
				}
				home, keyring := gpgHome(t, gpg)
				gate = "  keyring: |\n    " + strings.ReplaceAll(strings.TrimSpace(keyring), "\n", "\n    ") + "\n"
				config, env = []string{"-c", "user.signingKey=ann@example.com"}, []string{"GNUPGHOME=" + home}
			}
			stock := func(repo string, args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "git", append(append([]string{"-C", repo, "-c", "user.name=Ann", "-c", "user.email=ann@example.com"}, config...), args...)...)
				cmd.Env = append(append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"), env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("git %v: %v\n%s", args, err, out)
				}
			}
			repo := bare(t)
			signedRelease(t, f, repo, nil)
			message := run(t, repo, "log", "-1", "--format=%B", "muster/stable")
			trust := gated(t, f, gate)

			stock(repo, "tag", "-s", "-m", message, "muster/stable", "refs/heads/muster/stable")
			v, err := judge(t, repo, trust)
			if err != nil || !strings.Contains(fmt.Sprint(v.Checks()), "tag signed by") {
				t.Fatalf("a signed tag: %v", err)
			}
			run(t, repo, "update-ref", "-d", "refs/tags/muster/stable")

			early := fmt.Sprintf("@%d +0000", time.Now().Add(-time.Minute).Unix()) // git asks for a passphrase after it has looked at the clock
			env = append(env, "GIT_COMMITTER_DATE="+early)
			stock(repo, "tag", "-s", "-m", message, "muster/stable", "refs/heads/muster/stable")
			if _, err := judge(t, repo, trust); err != nil {
				t.Fatalf("a tag that was signed a minute after git had begun it: %v", err)
			}
			run(t, repo, "update-ref", "-d", "refs/tags/muster/stable")
			env = env[:len(env)-1]

			stock(repo, "tag", "-s", "-m", "nothing about a release", "muster/stable", "refs/heads/muster/stable")
			if _, err := judge(t, repo, trust); bundles.RefusalName(err) != "unsigned-commit" {
				t.Fatalf("a signed tag about something else: %v", err)
			}
			run(t, repo, "update-ref", "-d", "refs/tags/muster/stable")

			tree := run(t, repo, "rev-parse", "muster/stable^{tree}")
			work := filepath.Join(t.TempDir(), "commit")
			stock(repo, "config", "x.y", "z") // the repository takes configuration
			cmd := exec.CommandContext(t.Context(), "sh", "-c", "git -C '"+repo+"' -c user.name=Ann -c user.email=ann@example.com "+quoted(config)+
				" commit-tree -S -m \"$1\" "+tree+" > "+work, "sh", message)
			cmd.Env = append(append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"), env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			hash, err := os.ReadFile(work)
			if err != nil {
				t.Fatal(err)
			}
			run(t, repo, "update-ref", "refs/heads/muster/stable", strings.TrimSpace(string(hash)))
			if _, err := judge(t, repo, trust); err != nil {
				t.Fatalf("a signed commit: %v", err)
			}
		})
	}
}

func quoted(args []string) string {
	var b strings.Builder
	for _, a := range args {
		b.WriteString(" '" + a + "'")
	}
	return b.String()
}

// gpgHome is a home with one key, and its public half.
func gpgHome(t *testing.T, gpg string) (home, keyring string) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // the agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), gpg, append([]string{"--batch", "--homedir", home}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	call("--passphrase", "", "--quick-generate-key", "Ann <ann@example.com>", "ed25519", "sign", "never")
	return home, call("--armor", "--export", "ann@example.com")
}

// TestSignatureConfusion: of two signatures, or of one that two readers could find in two places, none counts.
func TestSignatureConfusion(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	ann, eve := newSigner(t, "ann"), newSigner(t, "eve")
	trust := gated(t, f, sshGate(ann.allowed))
	repo := bare(t)
	signedRelease(t, f, repo, ann.sign)
	good := run(t, repo, "cat-file", "commit", "muster/stable") + "\n"
	header := func(s *signer, payload string) string {
		sig, err := s.sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return "gpgsig " + strings.ReplaceAll(strings.TrimSuffix(string(sig), "\n"), "\n", "\n ") + "\n"
	}
	unsigned := good[:strings.Index(good, "gpgsig ")] + good[strings.Index(good, "\n\n"):][1:]
	first, rest, _ := strings.Cut(unsigned, "\n\n")
	join := func(head, body string) string { return head + "\n\n" + body }
	two, err := eve.sign([]byte(unsigned))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ object, want string }{
		"as it was":                   {good, ""},
		"signed again by her":         {join(first+"\n"+strings.TrimSuffix(header(ann, unsigned), "\n"), rest), ""},
		"two signature headers":       {join(first+"\n"+header(eve, unsigned)+strings.TrimSuffix(header(ann, unsigned), "\n"), rest), "unsigned-commit"},
		"a SHA-256 signature, too":    {join(first+"\n"+header(ann, unsigned)+strings.TrimSuffix(strings.Replace(header(eve, unsigned), "gpgsig", "gpgsig-sha256", 1), "\n"), rest), "unsigned-commit"},
		"another in the message":      {join(first+"\n"+strings.TrimSuffix(header(ann, unsigned), "\n"), rest+string(two)), "unsigned-commit"},
		"two armors in one header":    {join(first+"\n"+header(ann, unsigned)+" "+strings.ReplaceAll(strings.TrimSuffix(string(two), "\n"), "\n", "\n "), rest), "unsigned-commit"},
		"an unknown header":           {join(first+"\nx-note hello\n"+strings.TrimSuffix(header(ann, join(first+"\nx-note hello", rest)), "\n"), rest), "unsigned-commit"},
		"by somebody else":            {join(first+"\n"+strings.TrimSuffix(header(eve, unsigned), "\n"), rest), "unsigned-commit"},
		"signed, then the tree moved": {strings.Replace(good, "tree ", "tree ", 1) + "more\n", "unsigned-commit"},
		"about two releases":          {confused(t, ann, first, rest+bundles.ReleaseTrailer+"sha256:00\n"), "unsigned-commit"},
		"about no release":            {confused(t, ann, first, "no trailer\n"), "unsigned-commit"},
	} {
		raw := brought(t, source(t, git.Config{URL: repo}))
		files := map[string][]byte{}
		for _, path := range []string{bundles.ReleasePath, bundles.SignatureFile("alice"), "a.yaml"} {
			files[path] = read(t, raw, path)
		}
		files[bundles.GitCommitPath] = []byte(c.object)
		_, err := bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, time.Now())
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s: %q (%v), wanted %q\n%s", name, got, err, c.want, c.object)
		}
	}
}

func confused(t *testing.T, s *signer, head, body string) string {
	t.Helper()
	sig, err := s.sign([]byte(head + "\n\n" + body))
	if err != nil {
		t.Fatal(err)
	}
	return head + "\ngpgsig " + strings.ReplaceAll(strings.TrimSuffix(string(sig), "\n"), "\n", "\n ") + "\n\n" + body
}

// TestTwoPGPSignaturesInOne: the first packet is a stranger's, the second would be good.
func TestTwoPGPSignaturesInOne(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	ann, err := openpgp.NewEntity("Ann", "", "ann@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	eve, err := openpgp.NewEntity("Eve", "", "eve@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var keyring bytes.Buffer
	w, err := armor.Encode(&keyring, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ann.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	trust := gated(t, f, "  keyring: |\n    "+strings.ReplaceAll(strings.TrimSpace(keyring.String()), "\n", "\n    ")+"\n")
	for name, c := range map[string]struct {
		by   []*openpgp.Entity
		want string
	}{"one": {[]*openpgp.Entity{ann}, ""}, "two": {[]*openpgp.Entity{eve, ann}, "unsigned-commit"}, "stranger": {[]*openpgp.Entity{eve}, "unsigned-commit"}} {
		repo := bare(t)
		signedRelease(t, f, repo, func(payload []byte) ([]byte, error) {
			var out bytes.Buffer
			w, err := armor.Encode(&out, openpgp.SignatureType, nil)
			if err != nil {
				return nil, err
			}
			for _, e := range c.by {
				if err := openpgp.DetachSign(w, e, bytes.NewReader(payload), nil); err != nil {
					return nil, err
				}
			}
			err = w.Close()
			return append(out.Bytes(), '\n'), err
		})
		if _, err := judge(t, repo, trust); bundles.RefusalName(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func read(t *testing.T, raw *bundles.Raw, path string) []byte {
	t.Helper()
	data, err := fs.ReadFile(raw.FS, path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
