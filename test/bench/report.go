// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Report is everything that one boot yielded.
type Report struct {
	Kernel  string      `json:"kernel"`
	LSM     string      `json:"lsm"`
	Rounds  int         `json:"rounds"`
	Costs   []Cost      `json:"costs"`
	Loads   []Load      `json:"loads"`
	Samples []Sample    `json:"samples"`
	Swaps   *SwapResult `json:"swaps,omitempty"`
	// Elsewhere is what other measurements than the driver's printed, by their names: see others.
	Elsewhere map[string]float64 `json:"elsewhere,omitempty"`
}

// Cost is what one operation costs in one case, in instructions.
type Cost struct {
	Op   string `json:"op"`
	Case string `json:"case"`
	// Total is the median of the process's own instructions; Added is the median difference to the case "none" of
	// the same round; Spread is the largest minus the smallest difference. AddedWall counts all instructions of the CPU.
	Total     float64 `json:"total"`
	Added     float64 `json:"added"`
	Spread    float64 `json:"spread"`
	AddedWall float64 `json:"addedWall"`
}

// Baseline is the case that the others are compared with.
const Baseline = "none"

// Summarize computes the costs from the samples.
func (r *Report) Summarize() {
	type key struct {
		op, name string
		round    int
	}
	byRound := map[key]Sample{}
	var ops, cases []string
	for _, s := range r.Samples {
		byRound[key{s.Op, s.Case, s.Round}] = s
		if !slices.Contains(ops, s.Op) {
			ops = append(ops, s.Op)
		}
		if !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
	}
	r.Costs = nil
	for _, op := range ops {
		for _, name := range cases {
			var total, added, wall []float64
			for round := range r.Rounds {
				base, s := byRound[key{op, Baseline, round}], byRound[key{op, name, round}]
				if s.N == 0 || base.N == 0 {
					continue
				}
				total = append(total, per(s.CPU, s.N))
				added = append(added, per(s.CPU, s.N)-per(base.CPU, base.N))
				wall = append(wall, per(s.Wall, s.N)-per(base.Wall, base.N))
			}
			if len(total) > 0 {
				r.Costs = append(r.Costs, Cost{
					Op: op, Case: name, Total: median(total), Added: median(added),
					Spread: slices.Max(added) - slices.Min(added), AddedWall: median(wall),
				})
			}
		}
	}
}

// Find returns one cost.
func (r *Report) Find(op, name string) (Cost, bool) {
	i := slices.IndexFunc(r.Costs, func(c Cost) bool { return c.Op == op && c.Case == name })
	if i < 0 {
		return Cost{}, false
	}
	return r.Costs[i], true
}

func per(total uint64, n int) float64 { return float64(total) / float64(n) }

func median(values []float64) float64 {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Table writes the report as Markdown: one row an operation, one column a case.
func (r *Report) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Kernel %s, security modules %s, %d rounds. Instructions per operation, process CPU; "+
		"all columns but the first are what is added to it (median over the rounds, ± half their spread).\n\n", r.Kernel, r.LSM, r.Rounds)
	var ops, cases []string
	for _, c := range r.Costs {
		if !slices.Contains(ops, c.Op) {
			ops = append(ops, c.Op)
		}
		if !slices.Contains(cases, c.Case) {
			cases = append(cases, c.Case)
		}
	}
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head := []string{"operation", "no agent (total)"}
	for _, name := range cases[min(1, len(cases)):] {
		head = append(head, title(name))
	}
	row(head)
	row(slices.Repeat([]string{"---"}, len(head)))
	for _, op := range ops {
		cells := []string{describe(op)}
		for _, name := range cases {
			c, ok := r.Find(op, name)
			switch {
			case !ok:
				cells = append(cells, "")
			case name == Baseline:
				cells = append(cells, number(c.Total))
			default:
				cells = append(cells, fmt.Sprintf("%+.0f (±%.0f)", c.Added, c.Spread/2))
			}
		}
		row(cells)
	}
	r.loadTable(&b, row)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) loadTable(b *strings.Builder, row func([]string)) {
	if len(r.Loads) == 0 {
		return
	}
	fmt.Fprintf(b, "\nLoading a ruleset (median; instructions of the agent's process), and the kernel memory it occupies.\n\n")
	row([]string{"case", "rules", "attaching", "policies to ruleset", "ruleset to enforced", "one rule changed", "kernel memory"})
	row(slices.Repeat([]string{"---"}, 7))
	var names []string
	for _, l := range r.Loads {
		if !slices.Contains(names, l.Case) {
			names = append(names, l.Case)
		}
	}
	for _, name := range names {
		var attach, compile, publish, change, memory []float64
		rules := 0
		for _, l := range r.Loads {
			if l.Case == name {
				rules = l.Rules
				if l.Attach > 0 {
					attach = append(attach, float64(l.Attach))
				}
				compile, publish = append(compile, float64(l.Compile)), append(publish, float64(l.Publish))
				change, memory = append(change, float64(l.Change)), append(memory, float64(l.Memory))
			}
		}
		row([]string{
			title(name), fmt.Sprint(rules), optional(attach), number(median(compile)), number(median(publish)), number(median(change)),
			fmt.Sprintf("%.2f MB", median(memory)/1e6),
		})
	}
}

// optional is the median, or nothing when there was nothing to measure.
func optional(values []float64) string {
	if len(values) == 0 {
		return ""
	}
	return number(median(values))
}

// number writes a number with thousands separated.
func number(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// title is a case's name in the table's head.
func title(name string) string {
	if rules, ok := strings.CutPrefix(name, "muster-"); ok {
		return "Muster, " + rules + " rules"
	}
	return cmp.Or(map[string]string{
		Empty: "empty programs", Visible: "Muster, everything visible", Calls: "Muster, a rule on a system call",
	}[name], name)
}

// describe is the row's name; an operation without one stands for itself.
func describe(op string) string {
	return cmp.Or(map[string]string{
		"getpid":      "getpid (control)",
		"stat":        "stat (control)",
		"open":        "open + close, file in no rule, warm",
		"open-60":     "open + close, path of 60 bytes, in no rule",
		"open-linked": "open + close, path of 60 bytes, judged anew each time",
		"open-beside": "open + close, beside files that rules name",
		"read":        "read of one byte",
		"write":       "write of one byte",
		"exec":        "fork + exec of a small program",
		"connect":     "TCP connect + accept, loopback",
		"pipe":        "read or write of one byte, pipe",
	}[op], op)
}
