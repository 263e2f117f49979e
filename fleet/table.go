// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxTableRows bounds README.md: forges stop rendering long tables, and roll.json has every host.
const maxTableRows = 1000

// Filter chooses rows of a roll; the zero value chooses all.
type Filter struct {
	Drifted, Stale, Refused bool
}

// Select answers the rows that satisfy any of the wanted properties, most urgent first.
func (f Filter) Select(rows []RollRow) []RollRow {
	var out []RollRow
	for _, r := range rows {
		all := !f.Drifted && !f.Stale && !f.Refused
		drifted := f.Drifted && (r.State == StateDrifted || r.Said == StateDrifted || r.Drift > 0)
		stale := f.Stale && (r.Has("Stale") || r.Has(ConditionLost))
		refused := f.Refused && r.Has("Refused")
		if all || drifted || stale || refused {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b RollRow) int {
		return cmp.Or(cmp.Compare(urgency(a), urgency(b)), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// urgency orders the table: what a person should look at comes first.
func urgency(r RollRow) int {
	n := 2 * (slices.Index(states, r.State) + 1)
	if len(r.Conditions) > 0 && n > 2*len(states)-2 {
		n = 2*len(states) - 3 // enforced or audited, but something is to be said
	}
	return n
}

// leaptText tells what Roll.Leapt means for who reads the table.
const leaptText = "a collector's clock leapt, or nobody folded for days; hosts may look lost for that alone, and none is removed yet"

// RenderMarkdown makes README.md of the status branch: counts, then the table a person reads on the forge.
// Everything that comes from a host stands in a code span of printable ASCII, where no forge sees links,
// mentions, markup or HTML, so that a host can say nothing but its words.
func RenderMarkdown(r Roll) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Fleet %s\n\n", code(r.Fleet, 128))
	b.WriteString(countLine(r.Counts) + "\n\n")
	fmt.Fprintf(&b, "Folded %s by %s. Each line rests on a report signed by its host: `hosts/`.\n\n",
		stamp(r.Time), code(r.Collector, maxHostID))
	if r.Leapt != nil {
		fmt.Fprintf(&b, "%s: %s.\n\n", stamp(*r.Leapt), leaptText)
	}
	rows := Filter{}.Select(r.Hosts)
	if len(rows) > 0 {
		b.WriteString("| host | state | release | drift | gaps | conditions | last seen (UTC) |\n")
		b.WriteString("|---|---|---|--:|--:|---|---|\n")
	}
	for i, row := range rows {
		if i == maxTableRows {
			fmt.Fprintf(&b, "\n%d more hosts: `roll.json`.\n", len(rows)-maxTableRows)
			break
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %s | %s |\n", code(row.Host, maxHostID), stateCell(row),
			codeOrDash(releaseText(row.Release)), row.Drift, row.Gaps, codeOrDash(conditionText(row.Conditions)), stamp(row.LastSeen))
	}
	markdownApart(&b, r)
	return []byte(b.String())
}

// markdownApart renders what does not count: unenrolled hosts and refs that hold no report.
func markdownApart(b *strings.Builder, r Roll) {
	if len(r.Unenrolled) > 0 {
		b.WriteString("\n## Not enrolled\n\nThese report under keys that `hosts.allowed_signers` does not name. They count for nothing.\n\n")
		b.WriteString("| host | says | key | last seen (UTC) |\n|---|---|---|---|\n")
	}
	for i, row := range r.Unenrolled {
		if i == maxTableRows {
			break
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(row.Host, maxHostID), stateCell(row), code(row.Key, 64), stamp(row.LastSeen))
	}
	if len(r.Rejected) > 0 {
		b.WriteString("\n## Rejected\n\nThese refs hold something that is no report of the host they name.\n\n| ref | why |\n|---|---|\n")
	}
	for i, x := range r.Rejected {
		if i == maxTableRows {
			break
		}
		fmt.Fprintf(b, "| %s | %s |\n", code(x.Ref, maxHostID), code(x.Reason, 32))
	}
}

// RenderText makes the table for a terminal, from rows that a Filter chose.
func RenderText(r Roll, rows []RollRow, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "fleet %s: %s\n", printable(r.Fleet, 128), r.Counts)
	fmt.Fprintf(&b, "folded %s ago by %s\n", age(now, r.Time), printable(r.Collector, maxHostID))
	if r.Leapt != nil {
		fmt.Fprintf(&b, "%s: %s\n", stamp(*r.Leapt), leaptText)
	}
	b.WriteString("\n")
	lines := [][]string{{"HOST", "STATE", "RELEASE", "DRIFT", "GAPS", "CONDITIONS", "LAST SEEN"}}
	for _, row := range rows {
		lines = append(lines, []string{
			printable(row.Host, maxHostID), stateCell(row), orDash(releaseText(row.Release)), fmt.Sprint(row.Drift), fmt.Sprint(row.Gaps),
			orDash(conditionText(row.Conditions)), age(now, row.LastSeen) + " ago",
		})
	}
	b.WriteString(columns(lines))
	for _, u := range r.Unenrolled {
		fmt.Fprintf(&b, "not enrolled: %s says %s, key %s\n", printable(u.Host, maxHostID), stateCell(u), printable(u.Key, 64))
	}
	for _, x := range r.Rejected {
		fmt.Fprintf(&b, "rejected: %s: %s\n", printable(x.Ref, maxHostID), printable(x.Reason, 32))
	}
	return b.String()
}

// String is the line of numbers.
func (c Counts) String() string { return strings.ReplaceAll(countLine(c), "**", "") }

// countLine is the line of numbers: totals, then every state that occurs.
func countLine(c Counts) string {
	hosts := "hosts"
	if c.Hosts == 1 {
		hosts = "host"
	}
	parts := []string{fmt.Sprintf("**%d %s**", c.Hosts, hosts)}
	for _, s := range slices.Backward(states) {
		if n := c.States[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	for _, x := range []struct {
		n    int
		word string
	}{{c.Lost, "Lost"}, {c.Refused, "refused a release"}, {c.Unenrolled, "not enrolled"}, {c.Rejected, "rejected"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	return strings.Join(parts, " · ")
}

// stateCell holds words of ours only: Decode lets no other state through.
func stateCell(r RollRow) string {
	if r.Has(ConditionLost) {
		return fmt.Sprintf("Lost (was %s)", word(r.Said))
	}
	return word(r.State)
}

func word(s HostState) string {
	if slices.Contains(states, s) {
		return string(s)
	}
	return "?"
}

func releaseText(r *RollRelease) string {
	if r == nil {
		return ""
	}
	text := fmt.Sprintf("%s %d.%d", r.Channel, r.Epoch, r.Sequence)
	if r.Level != "enforce" {
		text += " (" + r.Level + ")"
	}
	return text
}

func conditionText(list []Condition) string {
	var words []string
	for _, c := range list {
		if c.Type == ConditionLost {
			continue // the state says it
		}
		w := c.Type
		if c.Error != "" {
			w += " (" + c.Error + ")"
		}
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return strings.Join(words, ", ")
}

func code(s string, n int) string {
	s = strings.TrimSpace(printable(s, n))
	if s == "" {
		return "-"
	}
	return "`" + s + "`"
}

func codeOrDash(s string) string { return code(s, 200) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s, 200)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// age is a duration in the largest unit that fits.
func age(now, then time.Time) string {
	d := max(now.Sub(then), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// columns pads cells with spaces; the last column stays as it is.
func columns(lines [][]string) string {
	width := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		for i, c := range l {
			if i == len(l)-1 {
				b.WriteString(c + "\n")
				continue
			}
			fmt.Fprintf(&b, "%-*s  ", width[i], c)
		}
	}
	return b.String()
}
