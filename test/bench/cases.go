// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Empty is the case of empty programs on the engine's hooks: the floor of what a BPF-LSM agent can cost.
const Empty = "empty"

// Calls is the case of Muster with one rule, on a system call that nothing here makes: only hosts whose policies speak of
// system calls pay for it.
const Calls = "calls"

// Visible is the case of Muster without a rule and with every class visible.
const Visible = "visible"

// Swaps is the case of rulesets that take turns while another program opens files. It comes last, once.
const Swaps = "swaps"

// SwapOperations are those that must go right meanwhile, and SwapCount how many swaps there must be at least.
const (
	SwapOperations = 1_000_000
	SwapCount      = 100
)

// RuleCounts are how many path rules Muster is measured with; 0 is a host that no policy selects.
func RuleCounts() []int { return []int{0, 1, 100, 1000, 10000} }

// Cases are all cases in their order.
func Cases() []string {
	cases := []string{Baseline, Empty}
	for _, n := range RuleCounts() {
		cases = append(cases, fmt.Sprintf("muster-%d", n))
	}
	return append(cases, Visible, Calls, Swaps)
}

// Rules returns how many rules a Muster case has.
func Rules(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, "muster-")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

// Operation is one thing that the measured program does.
type Operation struct {
	// Name is the row; Args are the program's operation and, behind the count, its argument.
	Name string
	Verb string
	Path string
	N    int
}

// Paths of the operations in the guest. No rule names the first two; the third lies in the directory of the rules'
// files and differs from them in its last byte only; the fourth has two links, so that the engine remembers nothing of it.
const (
	PathShort  = "/opt/w/data"
	PathSixty  = "/srv/application/releases/current/share/templates/index.html"
	PathBeside = "/var/lib/muster-bench/rules/0/file-0x"
	PathLinked = "/srv/application/releases/current/share/templates/other.html"
	PathSwaps  = "/srv/swaps/file" // and what work.c puts behind it
)

// RulePath is the path that rule number i blocks: spread over directories as real policies are.
func RulePath(i int) string { return fmt.Sprintf("/var/lib/muster-bench/rules/%d/file-%d", i%97, i) }

// ProgramPath is the program that rule number i blocks.
func ProgramPath(i int) string { return fmt.Sprintf("/usr/lib/muster-bench/%d/tool-%d", i%97, i) }

// Operations are the rows of the table. Counts are chosen so that a row repeats within a few instructions.
func Operations(work string) []Operation {
	return []Operation{
		{"getpid", "getpid", "", 20000},
		{"stat", "stat", PathShort, 5000},
		{"open", "open", PathShort, 5000},
		{"open-60", "open", PathSixty, 5000},
		{"open-linked", "open", PathLinked, 5000},
		{"open-beside", "open", PathBeside, 5000},
		{"read", "read", PathShort, 10000},
		{"write", "write", PathShort, 5000},
		{"pipe", "pipe", "", 10000},
		{"exec", "exec", work, 500},
		{"connect", "connect", "", 500},
	}
}

// Names splits a list of names with commas between them; nothing is no names.
func Names(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// Selected are the operations of those names, in the order of the table; no names means all.
func Selected(work string, names []string) []Operation {
	return slices.DeleteFunc(Operations(work), func(o Operation) bool {
		return len(names) > 0 && !slices.Contains(names, o.Name)
	})
}
