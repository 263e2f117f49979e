// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
)

func TestEncodeDecode(t *testing.T) {
	t.Parallel()
	r := testReport("web-1", 3)
	r.Timings = map[string]float64{"apply": 0.0125, "nan": math.NaN()}
	r.Losses = map[string]uint64{"ring-full": math.MaxUint64}
	r.Events = []EventCount{{Policy: "a<b>&\u2028", Action: "Block", Count: 1}}
	b, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	again, err := Encode(got)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("encoding again differs: %v\n%s\n%s", err, b, again)
	}
	if got.Losses["ring-full"] != maxExact || len(got.Timings) != 1 {
		t.Errorf("numbers: %v %v", got.Losses, got.Timings)
	}
}

func TestEncodeTruncates(t *testing.T) {
	t.Parallel()
	r := testReport("web-1", 3)
	for i := range 5000 {
		r.Gaps = append(r.Gaps, enforce.Gap{Subject: enforce.Host, Rule: i, Backend: "bpflsm", Reason: "class", Detail: strings.Repeat("é<", 40)})
	}
	for i := range 300 {
		r.Drift = append(r.Drift, enforce.Drift{Kind: enforce.DriftAltered, Backend: "bpflsm", Observed: fmt.Sprint(i), Severity: "high"})
	}
	r.Conditions = []Condition{{Type: "Refused", Error: "rollback", Message: strings.Repeat("x", 1<<20)}}
	b, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxReport || len(b) < MaxReport*8/10 {
		t.Errorf("%d bytes", len(b))
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Gaps)+got.Truncated["gaps"] != 5000 || len(got.Drift)+got.Truncated["drift"] != 300 || len(got.Conditions) != 1 {
		t.Errorf("%d gaps, %d drift, truncated %v", len(got.Gaps), len(got.Drift), got.Truncated)
	}
	if got.Drift[0].Observed != "0" {
		t.Error("the head of the list was cut")
	}
	r.Agent = strings.Repeat("x", MaxReport)
	if _, err := Encode(r); !errors.Is(err, ErrReportSize) {
		t.Errorf("what cannot be cut: %v", err)
	}
}

// Reports that no honest agent makes; each has its named reason.
func TestHostileReports(t *testing.T) {
	t.Parallel()
	hosts := enrol(t, "web-1", "web-2")
	good := signed(t, testReport("web-1", 5))
	edit := func(old, with string) SignedReport {
		if !bytes.Contains(good.Report, []byte(old)) {
			t.Fatalf("no %q in %s", old, good.Report)
		}
		return signedBytes(t, "web-1", bytes.Replace(good.Report, []byte(old), []byte(with), 1))
	}
	other := signed(t, testReport("web-2", 5))
	for name, c := range map[string]struct {
		report SignedReport
		want   string
	}{
		"good":                 {good, ""},
		"oversized":            {signedBytes(t, "web-1", append(good.Report, bytes.Repeat([]byte(" "), MaxReport)...)), "too-large"},
		"empty":                {signedBytes(t, "web-1", nil), "malformed"},
		"not json":             {signedBytes(t, "web-1", []byte("hello")), "malformed"},
		"deep":                 {signedBytes(t, "web-1", bytes.Repeat([]byte("["), 60000)), "malformed"},
		"two documents":        {signedBytes(t, "web-1", append(good.Report, good.Report...)), "malformed"},
		"unknown field":        {edit(`"agent"`, `"agenda":1,"agent"`), "malformed"},
		"duplicate key":        {edit(`"agent":"test"`, `"agent":"test","agent":"test"`), "not-canonical"},
		"other case":           {edit(`"agent"`, `"Agent"`), "not-canonical"},
		"space":                {edit(`"agent":`, `"agent": `), "not-canonical"},
		"escaped":              {edit(`"agent":"test"`, `"agent":"\u0074est"`), "not-canonical"},
		"null list":            {edit(`"drift":[]`, `"drift":null`), "not-canonical"},
		"invalid utf-8":        {edit(`"agent":"test"`, "\"agent\":\"\xff\xfe\""), "not-canonical"},
		"wrong host id":        {SignedReport{Ref: "web-1", Report: other.Report, Signature: other.Signature}, "misplaced"},
		"another's signature":  {SignedReport{Ref: "web-1", Report: good.Report, Signature: other.Signature}, "bad-signature"},
		"no signature":         {SignedReport{Ref: "web-1", Report: good.Report}, "no-signature"},
		"changed after":        {SignedReport{Ref: "web-1", Report: bytes.Replace(good.Report, []byte("Enforced"), []byte("Drifted"), 1), Signature: good.Signature}, "bad-signature"},
		"path traversal":       {edit(`"host":"web-1"`, `"host":"../../x"`), "bad-host-id"},
		"slash":                {edit(`"host":"web-1"`, `"host":"a/b"`), "bad-host-id"},
		"long id":              {edit(`"host":"web-1"`, `"host":"`+strings.Repeat("a", 64)+`"`), "bad-host-id"},
		"lock":                 {edit(`"host":"web-1"`, `"host":"a.lock"`), "bad-host-id"},
		"other fleet":          {edit(`"fleet":"lab"`, `"fleet":"prod"`), "wrong-fleet"},
		"fleet is markup":      {edit(`"fleet":"lab"`, `"fleet":"[x](http://evil)"`), "bad-value"},
		"state is markup":      {edit(`"state":"Enforced"`, `"state":"[x](http://evil)"`), "bad-value"},
		"condition is markup":  {edit(`"conditions":[]`, `"conditions":[{"since":"2026-01-02T03:04:05Z","type":"<img src=x>"}]`), "bad-value"},
		"sequence 0":           {edit(`"sequence":5`, `"sequence":0`), "bad-value"},
		"sequence negative":    {edit(`"sequence":5`, `"sequence":-5`), "bad-value"},
		"sequence too large":   {edit(`"sequence":5`, `"sequence":9007199254740993`), "bad-value"},
		"sequence fractional":  {edit(`"sequence":5`, `"sequence":5.5`), "malformed"},
		"other schema":         {edit("report/v1", "report/v2"), "bad-value"},
		"mode":                 {edit(`"mode":"enforce"`, `"mode":"on"`), "bad-value"},
		"time":                 {edit(`"time":"2026-01-02T03:04:05Z"`, `"time":"yesterday"`), "malformed"},
		"time elsewhere":       {edit(`"time":"2026-01-02T03:04:05Z"`, `"time":"2026-01-02T03:04:05.0Z"`), "not-canonical"},
		"truncated by nothing": {edit(`"time":`, `"time":"2026-01-02T03:04:05Z","truncated":{"gaps":-1},"x":`), "malformed"},
	} {
		_, err := CheckReport(c.report, "lab", hosts, testNow)
		got := ""
		if err != nil {
			got = Reason(err)
		}
		if got != c.want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, c.want)
		}
	}
}

// A signature made for another purpose is worth nothing, even by the right key.
func TestWrongNamespace(t *testing.T) {
	t.Parallel()
	s := signed(t, testReport("web-1", 5))
	sig, err := Sign(testKey(t, "web-1"), NamespaceRoll, s.Report)
	if err != nil {
		t.Fatal(err)
	}
	s.Signature = sig
	if _, err := CheckReport(s, "lab", enrol(t, "web-1"), testNow); Reason(err) != "wrong-namespace" {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(testReport("web-1", 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"muster.dev/report/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(r)
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("decodes, but encodes to something else: %v\n%q\n%q", err, b, again)
		}
	})
}

func FuzzAllowedSigners(f *testing.F) {
	key := testKey(f, "web-1").PublicKey()
	f.Add([]byte("web-1 " + publicLine(key)))
	f.Add([]byte(`*.x cert-authority,namespaces="a,b",valid-after=20260101Z ` + publicLine(key)))
	f.Add([]byte(`"a b" c="d ` + publicLine(key)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAllowedSigners("f", b)
		if err != nil {
			if !errors.Is(err, ErrAllowedSigners) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		_ = a.Check("web-1", key, NamespaceReport, testNow)
	})
}

func FuzzVerify(f *testing.F) {
	sig, err := Sign(testKey(f, "web-1"), NamespaceReport, []byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig, []byte("m"))
	f.Fuzz(func(t *testing.T, sig, message []byte) {
		if _, err := Verify(sig, NamespaceReport, message); err == nil && !bytes.Equal(message, []byte("m")) {
			// A fuzzer may sign with a key of its own only by luck beyond hope.
			t.Errorf("accepted %q", message)
		}
	})
}
