// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/enforce"
)

const least = "source: {url: \"https://git.example.com/policy.git\"}\n"

func TestLeastConfigurationIsTheDefault(t *testing.T) {
	t.Parallel()
	got, err := Parse("musterd.yaml", []byte(least))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Source.URL = "https://git.example.com/policy.git"
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalReadsBack(t *testing.T) {
	t.Parallel()
	cfg := Default()
	cfg.Source.URL = "ssh://git@git.example.com/policy.git"
	cfg.Source.Credentials.SSHKeyFile = "/etc/muster/id"
	cfg.Source.Interval = 5 * time.Second
	cfg.Mode = enforce.ModeAudit
	cfg.Postures.File = enforce.PostureBlock
	cfg.Protect = []Protect{{Source: "/usr/bin/backup", Object: "/bin/sh"}}
	cfg.Events.Compress = false
	cfg.Metrics.Socket = ""
	text, err := Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("musterd.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(cfg, *got); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	if strings.Contains(string(text), "driftInterval") {
		t.Errorf("a default was written:\n%s", text)
	}
}

// TestRefused: each broken file gets its place and its advice.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want, hint string }{
		"empty":               {"", "f:1:1: empty", "source.url"},
		"only a comment":      {"# nothing\n", "f:1:1: ", ""},
		"no source":           {"mode: enforce\n", "source.url is needed", "Git repository"},
		"unknown key":         {least + "modee: audit\n", `f:2:1: unknown key "modee"`, `"mode"`},
		"unknown nested key":  {"source: {url: x, intervall: 1m}\n", `f:1:18: unknown key "source.intervall"`, `"interval"`},
		"far from any key":    {least + "zzzzzzzzz: 1\n", `unknown key "zzzzzzzzz"`, "known here"},
		"twice":               {least + "mode: audit\nmode: enforce\n", "f:3:1: mode is given twice", ""},
		"no duration":         {"source: {url: x, interval: soon}\n", `f:1:28: source.interval: "soon" is no duration`, "30s"},
		"number as duration":  {"source: {url: x, interval: 60}\n", "is no duration", "30s"},
		"too often":           {"source: {url: x, interval: 10ms}\n", "f:1:28: source.interval is 10ms, the least is 1s", ""},
		"negative jitter":     {"source: {url: x, jitter: -1s}\n", "source.jitter", ""},
		"no cron line":        {"source: {url: x, schedule: \"every day\"}\n", "source.schedule is no cron line", "@hourly"},
		"mode":                {least + "mode: block\n", `f:2:7: mode is "block"`, "enforce, audit, off"},
		"posture":             {least + "postures: {file: deny}\n", `postures.file is "deny"`, "audit, block"},
		"visibility":          {least + "visibility: [process, syscalls]\n", `visibility[1] is "syscalls"`, "process, file, network"},
		"relative path":       {least + "stateDir: var/muster\n", "stateDir must be an absolute path", ""},
		"relative credential": {"source: {url: x, credentials: {tokenFile: token}}\n", "source.credentials.tokenFile must be an absolute path", ""},
		"self":                {least + "protectSelf: true\n", "hostId is needed with protectSelf", "host name"},
		"host id":             {least + "hostId: Web_1\n", "hostId must match", "hostname"},
		"protect":             {least + "protect: [{source: sshd, object: /bin/sh}]\n", "protect[0] needs an absolute source", ""},
		"protect is no list":  {least + "protect: {source: /a, object: /b}\n", "protect must be a list", ""},
		"source is a list":    {"source: [a]\n", "f:1:9: source must be a mapping", ""},
		"bool":                {least + "allowHostAllowlist: maybe\n", "is no true or false", ""},
		"number":              {least + "events: {queue: many}\n", "is no whole number", ""},
		"queue":               {least + "events: {queue: 0}\n", "events.queue must be between", ""},
		"no value":            {least + "mode:\n", "mode has no value", "default"},
		"two documents":       {least + "---\nmode: audit\n", "more than one document", "---"},
		"anchor":              {"source: &a {url: x}\n", "anchors and aliases", "write the value out"},
		"bomb":                {"a: &a [x,x]\nb: &b [*a,*a]\nsource: [*b,*b]\n", "f:1:1: unknown key", ""},
		"tab":                 {"source:\n\turl: x\n", "f:2:1: not YAML", "spaces"},
		"binary":              {"\x00\x01\x02", "not YAML", ""},
		"not a mapping":       {"- a\n", "the configuration must be a mapping", ""},
		"a word":              {"hello\n", "the configuration must be a mapping", ""},
		"metrics address":     {least + "metrics: {listen: \"9464\"}\n", "metrics.listen is no address", "127.0.0.1"},
		"huge":                {least + "# " + strings.Repeat("x", maxSize) + "\n", "larger than 1 MiB", ""},
		"collect":             {least + "status: {collect: always}\n", `status.collect is "always"`, "auto, off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("f", []byte(c.text))
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, wanted %q", err, c.want)
			}
			var hinter interface{ Hint() string }
			if !errors.As(err, &hinter) || !strings.Contains(hinter.Hint(), c.hint) {
				t.Errorf("hint %v, wanted %q", hinter, c.hint)
			}
		})
	}
}

// TestTruncated: a configuration that ends at any byte is refused or means what its whole lines say; it never
// panics and never turns into something stronger or weaker than written.
func TestTruncated(t *testing.T) {
	t.Parallel()
	whole := least + "mode: audit\npostures: {file: block}\ndriftInterval: 30s\nprotect:\n  - {source: /a, object: /b}\n"
	for n := range len(whole) {
		cfg, err := Parse("f", []byte(whole[:n]))
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		if cfg.Mode != enforce.ModeAudit && cfg.Mode != enforce.ModeEnforce {
			t.Errorf("%d bytes: mode %q", n, cfg.Mode)
		}
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "musterd.yaml")
	if err := os.WriteFile(path, []byte(least), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(least))
	f.Add([]byte("source: {url: x, interval: 1m}\nprotect: [{source: /a}]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, err := Parse("f", content)
		if (cfg == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err == nil {
			text, err := Marshal(*cfg)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Parse("f", text); err != nil || !cmp.Equal(cfg, again) {
				t.Fatalf("does not read back: %v\n%s", err, text)
			}
		}
	})
}
