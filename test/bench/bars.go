// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// bar is what a row of the report has to meet.
type bar struct {
	row   string
	limit float64
	unit  string
	// value is what was measured; false when it was not.
	value func(r *Report) (float64, bool)
}

// noise is what a cost of nothing may differ from 0, in instructions.
const noise = 10

// floorFactor is how much more than the empty programs a host without rules may pay.
const floorFactor = 1.8

// bars are the kernel side's, in the order of the table.
func bars(r *Report) []bar {
	list := []bar{
		{"getpid", noise, "instructions", worst("getpid")},
		{"stat", noise, "instructions", worst("stat")},
		{"open + close, file in no rule, warm, 1 to 10,000 rules", 550, "instructions", most("open", withRules)},
		{"the same with 10,000 rules, of what it costs with 1", 1.1, "times", grown("open")},
		{"open + close, warm, with all else that its CPU does meanwhile", 600, "instructions", wall("open")},
		{"open + close, path of 60 bytes, nothing remembered", 2500, "instructions", most("open-linked", withRules)},
		{"read or write of one byte, no file rule", noise, "instructions", most("read", "muster-0")},
		{"read of one byte, file rules", 430, "instructions", most("read", withRules)},
		{"write of one byte, file rules", 430, "instructions", most("write", withRules)},
		{"read or write of one byte, pipe, file rules", 220, "instructions", most("pipe", withRules)},
		{"fork + exec", 20_000, "instructions", most("exec", withRules)},
		{"TCP connect + accept", 1300, "instructions", most("connect", withRules)},
	}
	for _, op := range []string{"open", "exec", "connect"} {
		floor, _ := r.Find(op, Empty)
		list = append(list, bar{
			describe(op) + ", host without rules: 1.8 times the empty programs", floorFactor * floor.Added, "instructions", most(op, "muster-0"),
		})
	}
	return append(list,
		bar{"rules on files, of 10,000 rules, that do not deny", 0, "", loaded(10_000, func(*Load) float64 { return 0 })}, // the driver ends when one does not
		bar{"kernel memory, 1,000 rules", 8, "MB", loaded(1000, megabytes)},
		bar{"kernel memory, 10,000 rules", 32, "MB", loaded(10_000, megabytes)},
		bar{"from the agent's start to the first rules in force", 2e9, "instructions", started},
		bar{"operations gone wrong of 1,000,000 during at least 100 swaps", 0, "", swapped},
		bar{"apply to enforced, 100 rules", 15, "ms", elsewhere("apply-100")},
		bar{"apply to enforced, 1,000 rules", 100, "ms", elsewhere("apply-1000")},
		bar{"apply to enforced, one rule changed of 10,000", 100, "ms", elsewhere("change-10000")},
		bar{"agent's memory (RSS), one rule", 45, "MB", elsewhere("rss-1")},
		bar{"agent's memory (RSS), 1,000 rules", 60, "MB", elsewhere("rss-1000")},
		bar{"agent's memory (RSS), 10,000 rules", 100, "MB", elsewhere("rss-10000")},
	)
}

// withRules stands for every case of Muster that has some.
const withRules = "*"

func matches(name, wanted string) bool {
	n, muster := Rules(name)
	return name == wanted || wanted == withRules && muster && n > 0
}

// extreme is the greatest of one kind of cost among the cases.
func extreme(op, wanted string, of func(Cost) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		found, greatest := false, math.Inf(-1)
		for _, c := range r.Costs {
			if c.Op == op && matches(c.Case, wanted) {
				found, greatest = true, max(greatest, of(c))
			}
		}
		return greatest, found
	}
}

func most(op, wanted string) func(*Report) (float64, bool) {
	return extreme(op, wanted, func(c Cost) float64 { return c.Added })
}

func worst(op string) func(*Report) (float64, bool) {
	return extreme(op, withRules, func(c Cost) float64 { return math.Abs(c.Added) })
}

func wall(op string) func(*Report) (float64, bool) {
	return extreme(op, withRules, func(c Cost) float64 { return c.AddedWall })
}

// grown is what an operation costs with 10,000 rules, divided by what it does with one.
func grown(op string) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		few, ok := r.Find(op, "muster-1")
		many, found := r.Find(op, "muster-10000")
		return many.Added / few.Added, ok && found
	}
}

func megabytes(l *Load) float64 { return float64(l.Memory) / 1e6 }

// loaded is the median of a property of the loads of so many rules.
func loaded(rules int, of func(*Load) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		var values []float64
		for i := range r.Loads {
			if r.Loads[i].Rules == rules {
				values = append(values, of(&r.Loads[i]))
			}
		}
		if len(values) == 0 {
			return 0, false
		}
		return median(values), true
	}
}

// started is attaching, and publishing the first rules, which attaches their programs.
func started(r *Report) (float64, bool) {
	attached, ok := loaded(0, func(l *Load) float64 { return float64(l.Attach) })(r)
	published, found := loaded(2, func(l *Load) float64 { return float64(l.Publish) })(r)
	return attached + published, ok && found
}

func swapped(r *Report) (float64, bool) {
	s := r.Swaps
	if s == nil || s.Operations < SwapOperations || s.Swaps < SwapCount {
		return 0, false
	}
	return float64(s.Leaked + s.Refused + s.Other), true
}

func elsewhere(name string) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		v, ok := r.Elsewhere[name]
		return v, ok
	}
}

// apart are bars that tests of their own keep, as passed or failed, and the command.
var apart = [][2]string{
	{"operations let in after SIGKILL of the agent, ten times in the middle of a swap", "make survive"},
	{"ways round a host rule that succeed", "make evade"},
}

// Bars writes what has to be met, and whether it is, as Markdown.
func (r *Report) Bars(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| what | measured | bar | |\n| --- | --- | --- | --- |\n")
	for _, row := range bars(r) {
		v, ok := row.value(r)
		if row.unit == "instructions" {
			v = math.Round(v) + 0 // no negative zero
		}
		measured := strings.TrimSpace(amount(v) + " " + row.unit)
		if !ok {
			measured = "not measured"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.row, measured, strings.TrimSpace(amount(row.limit)+" "+row.unit), outcome(v, row.limit, ok))
	}
	for _, row := range apart {
		fmt.Fprintf(&b, "| %s | `%s` | none | |\n", row[0], row[1])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func outcome(v, limit float64, measured bool) string {
	switch {
	case !measured:
		return ""
	case v <= limit:
		return "met"
	case limit == 0:
		return "**missed**"
	default:
		return fmt.Sprintf("**missed by %s** (%.0f %%)", amount(v-limit), 100*(v-limit)/limit)
	}
}

// amount writes a number as short as it says something.
func amount(v float64) string {
	switch {
	case math.Abs(v) >= 1e8:
		return fmt.Sprintf("%.2f G", v/1e9)
	case math.Abs(v) < 100 && v != math.Trunc(v):
		return fmt.Sprintf("%.2f", v)
	default:
		return number(v)
	}
}

// between are the lines of a page that a run writes; it must have both.
var between = [2]string{"<!-- from here: make bench -->\n", "<!-- to here: make bench -->\n"}

// Insert puts text into a page in the place of what a run before wrote there.
func Insert(page, text string) (string, error) {
	begin, end := strings.Index(page, between[0]), strings.Index(page, between[1])
	if begin < 0 || end < begin {
		return "", fmt.Errorf("%w: the page has no place for the table", ErrMeasure)
	}
	return page[:begin+len(between[0])] + text + page[end:], nil
}
