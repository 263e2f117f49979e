// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseAllowedSigners(t *testing.T) {
	t.Parallel()
	k1, k2 := publicLine(testKey(t, "web-1").PublicKey()), publicLine(testKey(t, "web-2").PublicKey())
	for name, c := range map[string]struct{ file, want string }{
		"plain":              {"web-1 " + k1, ""},
		"comment":            {"# hosts\n\nweb-1 " + k1 + " somebody's host\r\n\t\n", ""},
		"two names":          {"web-1,web-1.example.org " + k1, ""},
		"all options":        {`web-1 namespaces="muster-report,muster-roll",valid-after="20260101Z",valid-before=20270101120000Z ` + k1, ""},
		"authority":          {"*.example.org,!db*.example.org cert-authority " + k1, ""},
		"two keys":           {"web-1 " + k1 + "\nweb-1 " + k2, ""},
		"one key, two hosts": {"web-1 " + k1 + "\nweb-2 " + k1, "f:2:1: allowed signers: this key is enrolled already in line 1"},
		"pattern":            {"web-* " + k1, "f:1:1: allowed signers: principal \"web-*\": a pattern is for cert-authority lines"},
		"bad id":             {"web_1 " + k1, `f:1:1: allowed signers: principal: host id: "web_1"`},
		"upper case":         {"Web-1 " + k1, "principal"},
		"empty name":         {"web-1, " + k1, "principal"},
		"unknown option":     {"web-1 verify-required " + k1, `f:1:7: allowed signers: option "verify-required" is not understood`},
		"unknown value":      {"web-1 a=b " + k1, "is not understood"},
		"option twice":       {`web-1 namespaces="a",namespaces="b" ` + k1, `f:1:22: allowed signers: option "namespaces" twice`},
		"authority=yes":      {"web-1 cert-authority=yes " + k1, "takes no value"},
		"empty namespaces":   {`web-1 namespaces="" ` + k1, "namespaces is empty"},
		"local time":         {"web-1 valid-after=20260101 " + k1, "has no Z"},
		"bad time":           {"web-1 valid-after=20261301Z " + k1, "is not YYYYMMDD"},
		"times swapped":      {"web-1 valid-after=20270101Z,valid-before=20260101Z " + k1, "valid-before is not after"},
		"open quote":         {`web-1 namespaces="a ` + k1, "quote is not closed"},
		"no key":             {"web-1", "f:1:6: allowed signers: line ends too early"},
		"half a key":         {"web-1 ssh-ed25519", "line ends too early"},
		"bad base64":         {"web-1 ssh-ed25519 AAAA*", "not base64"},
		"cut key":            {"web-1 " + k1[:len(k1)-8], "f:1:7: allowed signers: key"},
		"type differs":       {"web-1 ssh-rsa " + strings.Fields(k1)[1], "key is ssh-ed25519, the line says ssh-rsa"},
		"dsa":                {"web-1 ssh-dss " + strings.Fields(k1)[1], "key is ssh-ed25519"},
		"every problem":      {"web_1 " + k1 + "\nweb_2 " + k2, "f:2:1"},
		"long line":          {strings.Repeat("a", 64<<10+1), "line of 65537 bytes"},
	} {
		_, err := ParseAllowedSigners("f", []byte(c.file))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrAllowedSigners)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAllowedSignersCheck(t *testing.T) {
	t.Parallel()
	key, other := testKey(t, "web-1").PublicKey(), testKey(t, "web-2").PublicKey()
	a, err := ParseAllowedSigners("f", []byte(`web-1 namespaces="muster-report",valid-after=20260101Z,valid-before=20260301Z `+publicLine(key)))
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"good":      a.Check("web-1", key, NamespaceReport, testNow),
		"host":      not(a.Check("web-2", key, NamespaceReport, testNow)),
		"key":       not(a.Check("web-1", other, NamespaceReport, testNow)),
		"namespace": not(a.Check("web-1", key, NamespaceRoll, testNow)),
		"early":     not(a.Check("web-1", key, NamespaceReport, time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC))),
		"late":      not(a.Check("web-1", key, NamespaceReport, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostIDs(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"web-1": true, "a": true, "web-1.example.org": true, strings.Repeat("a", 63): true, "0": true,
		"": false, strings.Repeat("a", 64): false, "..": false, "a..b": false, "../x": false, "a/b": false, ".a": false, "a.": false,
		"-a": false, "a-": false, "A": false, "a b": false, "a\n": false, "a.lock": false, "é": false, "a\x00": false, "a.-b": false,
	} {
		if err := CheckHostID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
	for name, want := range map[string]string{
		"Web-1.Example.ORG": "web-1.example.org", "host_1": "host-1", " x\n": "x", "-x-": "x", strings.Repeat("h", 70): strings.Repeat("h", 63), "..": "",
	} {
		got, err := HostID(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestNextSlot(t *testing.T) {
	t.Parallel()
	const every = time.Minute
	at := testNow
	offset := time.Duration(-1)
	for range 5 {
		next := NextSlot("web-1", every, at)
		if !next.After(at) || next.Sub(at) > every {
			t.Fatalf("slot %v after %v", next, at)
		}
		if o := next.Sub(next.Truncate(every)); offset >= 0 && o != offset {
			t.Errorf("the phase moved from %v to %v", offset, o)
		} else {
			offset = o
		}
		at = next
	}
	if NextSlot("web-1", every, testNow).Equal(NextSlot("web-2", every, testNow)) {
		t.Error("two hosts share a slot")
	}
}
