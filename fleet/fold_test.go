// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/enforce"
)

func fold(t *testing.T, now time.Time, previous *Roll, hosts *AllowedSigners, reports ...SignedReport) Folded {
	t.Helper()
	return Fold(FoldInput{
		Fleet: "lab", Collector: "roll-1", Reports: reports, Hosts: hosts, Previous: previous, Now: now,
		LostAfter: time.Hour, RemoveAfter: 24 * time.Hour,
	})
}

func kept(s SignedReport) SignedReport {
	s.Kept = true
	return s
}

func conditions(r RollRow) string {
	var list []string
	for _, c := range r.Conditions {
		list = append(list, c.Type)
	}
	return strings.Join(list, " ")
}

// What is shown for one host, whoever brings what.
func TestFoldOneHost(t *testing.T) {
	t.Parallel()
	all := enrol(t, "web-1")
	r5, r6 := signed(t, testReport("web-1", 5)), signed(t, testReport("web-1", 6))
	clone := signed(t, testReport("web-1", 5), func(r *Report) { r.Kernel = "6.1" })
	ahead := signed(t, testReport("web-1", 5), func(r *Report) { r.Time = testNow.Add(time.Hour) })
	stranger := r6
	stranger.Signature = signedBytes(t, "mallory", r6.Report).Signature
	for name, c := range map[string]struct {
		reports    []SignedReport
		sequence   int64
		conditions string
		apart      int
		rejected   int
	}{
		"first":                  {[]SignedReport{r5}, 5, "", 0, 0},
		"newer":                  {[]SignedReport{r6, kept(r5)}, 6, "", 0, 0},
		"same":                   {[]SignedReport{r5, kept(r5)}, 5, "", 0, 0},
		"replayed":               {[]SignedReport{r5, kept(r6)}, 6, "Replayed", 0, 0},
		"cloned":                 {[]SignedReport{clone, kept(r5)}, 5, "Cloned", 0, 0},
		"ref gone":               {[]SignedReport{kept(r5)}, 5, "", 0, 0},
		"clock ahead":            {[]SignedReport{ahead}, 5, "ClockAhead", 0, 0},
		"another key on the ref": {[]SignedReport{stranger, kept(r5)}, 5, "", 1, 0},
		"garbage on the ref":     {[]SignedReport{{Ref: "web-1", Report: []byte("x")}, kept(r5)}, 5, "", 0, 1},
	} {
		got := fold(t, testNow, nil, all, c.reports...)
		if len(got.Roll.Hosts) != 1 {
			t.Errorf("%s: %d hosts", name, len(got.Roll.Hosts))
			continue
		}
		row := got.Roll.Hosts[0]
		if row.Sequence != c.sequence || conditions(row) != c.conditions || len(got.Roll.Unenrolled) != c.apart || len(got.Roll.Rejected) != c.rejected {
			t.Errorf("%s: %+v, apart %v, rejected %v", name, row, got.Roll.Unenrolled, got.Roll.Rejected)
		}
		if i := got.Accepted["web-1"]; !bytes.Contains(c.reports[i].Report, fmt.Appendf(nil, `"sequence":%d`, c.sequence)) {
			t.Errorf("%s: rests on report %d", name, i)
		}
	}
}

func TestFoldKeepsKeptClone(t *testing.T) {
	t.Parallel()
	r5 := signed(t, testReport("web-1", 5))
	clone := signed(t, testReport("web-1", 5), func(r *Report) { r.Kernel = "6.1" })
	for _, reports := range [][]SignedReport{{clone, kept(r5)}, {kept(r5), clone}} {
		got := fold(t, testNow, nil, enrol(t, "web-1"), reports...)
		if !reports[got.Accepted["web-1"]].Kept {
			t.Error("a clone displaced what was there")
		}
	}
}

// Alarms outlive the report that follows within a minute, and end after a day.
func TestFoldAlarmsStay(t *testing.T) {
	t.Parallel()
	all := enrol(t, "web-1")
	r5, r6, r7 := signed(t, testReport("web-1", 5)), signed(t, testReport("web-1", 6)), signed(t, testReport("web-1", 7))
	first := fold(t, testNow, nil, all, r5, kept(r6))
	second := fold(t, testNow.Add(time.Minute), &first.Roll, all, r7, kept(r6))
	if row := second.Roll.Hosts[0]; conditions(row) != "Replayed" || !row.Conditions[0].Since.Equal(testNow) {
		t.Errorf("after a minute: %+v", row.Conditions)
	}
	third := fold(t, testNow.Add(25*time.Hour), &second.Roll, all, signed(t, testReport("web-1", 8)), kept(r7))
	if row := third.Roll.Hosts[0]; conditions(row) != "" {
		t.Errorf("after a day: %v", row.Conditions)
	}
}

// A host's own clock never decides whether it is lost, once there is a roll.
func TestFoldLostAndRemoved(t *testing.T) {
	t.Parallel()
	all := enrol(t, "web-1", "old-clock")
	r := signed(t, testReport("web-1", 5), func(r *Report) { r.State = StateDrifted })
	f := fold(t, testNow, nil, all, r)
	f = fold(t, testNow.Add(59*time.Minute), &f.Roll, all, r)
	if row := f.Roll.Hosts[0]; row.State != StateDrifted || !row.LastSeen.Equal(testNow) {
		t.Fatalf("before an hour: %+v", row)
	}
	behind := signed(t, testReport("old-clock", 1), func(r *Report) { r.Time = testNow.AddDate(-1, 0, 0) })
	f = fold(t, testNow.Add(2*time.Hour), &f.Roll, all, r, behind)
	if row := f.Roll.Hosts[1]; row.State != StateUnknown || row.Said != StateDrifted || !row.Has(ConditionLost) {
		t.Errorf("after two hours: %+v", row)
	}
	if row := f.Roll.Hosts[0]; row.Has(ConditionLost) {
		t.Errorf("a host with a slow clock is lost: %+v", row)
	}
	if f.Roll.Counts.Lost != 1 || f.Roll.Counts.States[StateDrifted] != 0 {
		t.Errorf("counts: %+v", f.Roll.Counts)
	}
	f = fold(t, testNow.Add(13*time.Hour), &f.Roll, all, r, behind)
	f = fold(t, testNow.Add(25*time.Hour), &f.Roll, all, r, behind)
	if !reflect.DeepEqual(f.Removed, []string{"web-1"}) || len(f.Roll.Hosts) != 1 || len(f.Roll.Removed) != 1 {
		t.Fatalf("after a day: %v, %+v", f.Removed, f.Roll.Removed)
	}
	// The ref could not be deleted: the host stays away until it says something new.
	f = fold(t, testNow.Add(26*time.Hour), &f.Roll, all, r, behind)
	if len(f.Roll.Hosts) != 1 || !f.Roll.Removed[0].At.Equal(testNow.Add(25*time.Hour)) {
		t.Errorf("it came back: %+v, %+v", f.Roll.Hosts, f.Roll.Removed)
	}
	f = fold(t, testNow.Add(27*time.Hour), &f.Roll, all, signed(t, testReport("web-1", 6)), behind)
	if len(f.Roll.Hosts) != 1 || f.Roll.Hosts[0].Host != "web-1" || f.Roll.Removed[0].Host != "old-clock" {
		t.Errorf("a new report: %+v, %+v", f.Roll.Hosts, f.Roll.Removed)
	}
}

func TestFoldNotEnrolled(t *testing.T) {
	t.Parallel()
	a, b := signed(t, testReport("web-1", 5)), signed(t, testReport("web-2", 5))
	f := fold(t, testNow, nil, enrol(t, "web-1"), a, b)
	if len(f.Roll.Hosts) != 1 || len(f.Roll.Unenrolled) != 1 || f.Roll.Unenrolled[0].Host != "web-2" || f.Roll.Counts.Hosts != 1 {
		t.Errorf("%+v", f.Roll)
	}
	if want := ssh.FingerprintSHA256(testKey(t, "web-2").PublicKey()); f.Roll.Unenrolled[0].Key != want {
		t.Errorf("key %s, want %s", f.Roll.Unenrolled[0].Key, want)
	}
	if _, ok := f.Accepted["web-2"]; ok {
		t.Error("an unenrolled host's report goes to the status branch")
	}
	// Enrolment withdrawn: what was kept goes.
	f = fold(t, testNow, &f.Roll, enrol(t, "web-2"), kept(a), b)
	if len(f.Roll.Hosts) != 1 || f.Roll.Hosts[0].Host != "web-2" || len(f.Roll.Unenrolled) != 0 {
		t.Errorf("%+v", f.Roll)
	}
	// Nobody is enrolled.
	f = fold(t, testNow, nil, nil, a, b)
	if len(f.Roll.Hosts) != 0 || len(f.Roll.Unenrolled) != 2 {
		t.Errorf("%+v", f.Roll)
	}
}

func TestFoldBoundsStrangers(t *testing.T) {
	t.Parallel()
	var reports []SignedReport
	for i := range maxRejected + 50 {
		reports = append(reports, SignedReport{Ref: fmt.Sprintf("h%d", i)})
	}
	f := fold(t, testNow, nil, nil, reports...)
	if len(f.Roll.Rejected) != maxRejected || f.Roll.Truncated["rejected"] != 50 || f.Roll.Counts.Rejected != maxRejected+50 {
		t.Errorf("%d rejected, %v", len(f.Roll.Rejected), f.Roll.Truncated)
	}
}

// The order in which reports come does not matter, nor who folds.
func TestFoldIsPure(t *testing.T) {
	t.Parallel()
	var ids []string
	for i := range 100 {
		ids = append(ids, fmt.Sprintf("h%d", i))
	}
	all := enrol(t, ids[:80]...)
	var reports []SignedReport
	for i, id := range ids {
		reports = append(reports, signed(t, testReport(id, int64(i+1))))
		if i%3 == 0 {
			reports = append(reports, kept(signed(t, testReport(id, int64(i+2)))))
		}
	}
	want, err := EncodeRoll(fold(t, testNow, nil, all, reports...).Roll)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		rng.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
		got, err := EncodeRoll(fold(t, testNow, nil, all, reports...).Roll)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("another order, another roll: %v\n%s\n%s", err, got, want)
		}
	}
	if _, err := DecodeRoll(want); err != nil {
		t.Error(err)
	}
}

func TestVerifyRoll(t *testing.T) {
	t.Parallel()
	f := fold(t, testNow, nil, enrol(t, "web-1"), signed(t, testReport("web-1", 5)))
	sign := func(name, key, namespace string) (b, sig []byte) {
		r := f.Roll
		r.Collector = name
		b, err := EncodeRoll(r)
		if err != nil {
			t.Fatal(err)
		}
		if sig, err = Sign(testKey(t, key), namespace, b); err != nil {
			t.Fatal(err)
		}
		return b, sig
	}
	named := Collectors{Keys: map[string]ssh.PublicKey{"roll-1": testKey(t, "roll-1").PublicKey()}}
	auto := Collectors{Hosts: enrol(t, "web-1", "web-2")}
	for name, c := range map[string]struct {
		collector, key, namespace string
		trusted                   Collectors
		ok                        bool
	}{
		"collector":               {"roll-1", "roll-1", NamespaceRoll, named, true},
		"under another's name":    {"roll-2", "roll-1", NamespaceRoll, named, false},
		"another's key":           {"roll-1", "web-1", NamespaceRoll, named, false},
		"host, collectors named":  {"web-1", "web-1", NamespaceRoll, named, false},
		"host, auto":              {"web-1", "web-1", NamespaceRoll, auto, true},
		"host under other's name": {"web-2", "web-1", NamespaceRoll, auto, false},
		"stranger, auto":          {"web-9", "web-9", NamespaceRoll, auto, false},
		"signed as a report":      {"roll-1", "roll-1", NamespaceReport, named, false},
		"nobody is trusted":       {"roll-1", "roll-1", NamespaceRoll, Collectors{}, false},
	} {
		b, sig := sign(c.collector, c.key, c.namespace)
		if _, err := VerifyRoll(b, sig, c.trusted, testNow); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := VerifyRoll(append(b, ' '), sig, c.trusted, testNow); err == nil {
			t.Errorf("%s: changed bytes are accepted", name)
		}
	}
}

// A host can put nothing into the tables but words in code spans.
func TestTableEscapes(t *testing.T) {
	t.Parallel()
	evil := []string{
		"`x` [a](http://evil.example)", "| x | y |", "<img src=x onerror=alert(1)>", "@everyone #1 http://evil.example",
		"\x1b[31mred\x1b[0m", "a\nb\r\n# head", "\u202egnp.exe", "\\`", "&lt;", "![](//evil)", "``` x", "www.evil.example",
	}
	var reports []SignedReport
	var ids []string
	for i, e := range evil {
		id := fmt.Sprintf("www.evil-%d.example", i)
		ids = append(ids, id)
		reports = append(reports, signed(t, testReport(id, 1), func(r *Report) {
			r.Backend, r.Kernel, r.Agent = e, e, e
			r.Releases = []ReportRelease{{Level: e, Name: e, Channel: e, Digest: e}}
			r.Conditions = []Condition{{Type: "Refused", Error: e, Message: e, Digest: e}}
		}))
	}
	f := fold(t, testNow, nil, enrol(t, ids[:6]...), append(reports, SignedReport{Ref: evil[0]})...)
	text := string(RenderMarkdown(f.Roll)) + RenderText(f.Roll, Filter{}.Select(f.Roll.Hosts), testNow)
	for _, r := range text {
		if r != '\n' && r != '·' && (r < ' ' || r > '~') {
			t.Errorf("%q in the table", r)
		}
	}
	outside := ""
	for i, part := range strings.Split(string(RenderMarkdown(f.Roll)), "`") {
		if i%2 == 0 {
			outside += part
		}
	}
	for _, bad := range []string{"evil", "http", "<", "@", "[", "www"} {
		if strings.Contains(outside, bad) {
			t.Errorf("%q outside a code span:\n%s", bad, outside)
		}
	}
	for line := range strings.SplitSeq(string(RenderMarkdown(f.Roll)), "\n") {
		if strings.HasPrefix(line, "| `www") && strings.Count(line, "|") != 8 && strings.Count(line, "|") != 5 {
			t.Errorf("cells: %s", line)
		}
	}
}

// Every gap is also drift of that kind; the table counts it once.
func TestFoldCountsGapsOnce(t *testing.T) {
	t.Parallel()
	r := signed(t, testReport("web-1", 5), func(r *Report) {
		r.Gaps = []enforce.Gap{{Reason: "class"}}
		r.Drift = []enforce.Drift{{Kind: enforce.DriftGap}, {Kind: enforce.DriftHeld}, {Kind: enforce.DriftForeign}}
	})
	if row := fold(t, testNow, nil, enrol(t, "web-1"), r).Roll.Hosts[0]; row.Drift != 1 || row.Gaps != 1 {
		t.Errorf("drift %d, gaps %d", row.Drift, row.Gaps)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	rows := []RollRow{
		{Host: "ok", State: StateEnforced},
		{Host: "drifted", State: StateDrifted},
		{Host: "refused", State: StateEnforced, Conditions: []Condition{{Type: "Refused"}}},
		{Host: "stale", State: StateEnforced, Conditions: []Condition{{Type: "Stale"}}},
		{Host: "lost", State: StateUnknown, Said: StateDrifted, Conditions: []Condition{{Type: ConditionLost}}},
	}
	for want, f := range map[string]Filter{
		"drifted lost refused stale ok": {},
		"drifted lost":                  {Drifted: true},
		"lost stale":                    {Stale: true},
		"refused":                       {Refused: true},
		"drifted lost refused":          {Drifted: true, Refused: true},
	} {
		var got []string
		for _, r := range f.Select(rows) {
			got = append(got, r.Host)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: %v, want %s", f, got, want)
		}
	}
}

// A collector whose clock leaps years ahead shows its hosts as lost, says why, and removes none; back again, all is as
// before, and hosts that are really gone are removed in the end.
func TestFoldClockLeaps(t *testing.T) {
	t.Parallel()
	all := enrol(t, "web-1", "web-2")
	one, two := signed(t, testReport("web-1", 5)), signed(t, testReport("web-2", 9))
	replayed := signed(t, testReport("web-1", 4))
	first := fold(t, testNow, nil, all, one, two)
	ahead := testNow.AddDate(5, 0, 0)
	roll := first.Roll
	for i := range 3 {
		got := fold(t, ahead.Add(time.Duration(i)*time.Minute), &roll, all, kept(one), kept(two), replayed)
		if len(got.Removed) > 0 || len(got.Roll.Hosts) != 2 || got.Roll.Counts.Lost != 2 {
			t.Fatalf("ahead, fold %d: removed %q, %d hosts, %d lost", i+1, got.Removed, len(got.Roll.Hosts), got.Roll.Counts.Lost)
		}
		if got.Roll.Leapt == nil || !strings.Contains(string(RenderMarkdown(got.Roll)), leaptText) ||
			!strings.Contains(RenderText(got.Roll, got.Roll.Hosts, ahead), leaptText) {
			t.Errorf("ahead, fold %d: the leap is not told: %v", i+1, got.Roll.Leapt)
		}
		roll = got.Roll
	}
	back := testNow.Add(10 * time.Minute)
	got := fold(t, back, &roll, all, kept(one), kept(two))
	if got.Roll.Counts.Lost != 0 || len(got.Roll.Hosts) != 2 || got.Roll.Leapt == nil || got.Roll.Leapt.After(back) {
		t.Fatalf("back: %d lost of %d, leapt %v", got.Roll.Counts.Lost, len(got.Roll.Hosts), got.Roll.Leapt)
	}
	if alarm := conditions(got.Roll.Hosts[0]); alarm != "Replayed" {
		t.Errorf("back: %q", alarm)
	}
	// Only web-2 goes on reporting; the fleet is folded every hour.
	removed := time.Time{}
	for at := back; removed.IsZero() && at.Before(back.Add(4*24*time.Hour)); at = at.Add(time.Hour) {
		roll = got.Roll
		two = signed(t, testReport("web-2", roll.Hosts[len(roll.Hosts)-1].Sequence+1))
		got = fold(t, at, &roll, all, kept(one), two)
		if len(got.Removed) > 0 {
			removed = at
		}
		if at.Sub(back) > 25*time.Hour && (got.Roll.Leapt != nil || conditions(got.Roll.Hosts[0]) == "Replayed") {
			t.Fatalf("%v after the way back: leapt %v, %q", at.Sub(back), got.Roll.Leapt, conditions(got.Roll.Hosts[0]))
		}
	}
	if len(got.Removed) != 1 || got.Removed[0] != "web-1" || removed.Sub(back) < 24*time.Hour {
		t.Errorf("removed %q %v after the way back", got.Removed, removed.Sub(back))
	}
}
