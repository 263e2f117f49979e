// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package evade

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What came of an attempt.
const (
	outcomeHeld      = "held"
	outcomeLimit     = "limit"      // it leads round, as docs/gaps.md says
	outcomeRound     = "GOT ROUND"  // nobody knew
	outcomeNoControl = "NO CONTROL" // it does not work without policies either
)

// result is one attempt: a line of testdata/KERNEL.txt, its fields parted by tabs.
type result struct{ Group, Way, Target, Caller, Outcome, Limit string }

type results []result

func (list results) count(outcome string) int {
	n := 0
	for _, r := range list {
		if r.Outcome == outcome {
			n++
		}
	}
	return n
}

func (list results) sum() string {
	text := fmt.Sprintf("%d attempts, %d held, %d by a named limit", len(list), list.count(outcomeHeld), list.count(outcomeLimit))
	for _, bad := range []string{outcomeRound, outcomeNoControl} {
		if n := list.count(bad); n > 0 {
			text += fmt.Sprintf(", %d %s", n, bad)
		}
	}
	return text
}

const (
	pageFile = "../../docs/evasion.md"
	kept     = "testdata"
)

var update = flag.Bool("update", false, "write docs/evasion.md")

// readResults reads testdata/KERNEL.txt.
func readResults(file string) (release string, list results, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if r, ok := strings.CutPrefix(line, "# "); ok {
			release = r
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			return "", nil, fmt.Errorf("%s: %q is no result", file, line)
		}
		list = append(list, result{f[0], f[1], f[2], f[3], f[4], f[5]})
	}
	return release, list, nil
}

// table is what all kernels gave, in the order of the first that had a row.
type table struct {
	kernels []string
	order   []result // without outcome
	cells   map[result]map[string]string
}

func readTable(dir string) (*table, []string, error) {
	files, err := filepath.Glob(dir + "/*.txt")
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(files)
	t := &table{cells: map[result]map[string]string{}}
	var sums []string
	for _, file := range files {
		release, list, err := readResults(file)
		if err != nil {
			return nil, nil, err
		}
		kernel := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.kernels = append(t.kernels, kernel)
		sums = append(sums, fmt.Sprintf("- **%s** (%s): %s.", kernel, release, list.sum()))
		for _, r := range list {
			key := r
			key.Outcome = ""
			if t.cells[key] == nil {
				t.cells[key] = map[string]string{}
				t.order = append(t.order, key)
			}
			t.cells[key][kernel] = r.Outcome
		}
	}
	return t, sums, nil
}

const pageHead = `# Ways round

` + "`make evade`" + ` tries each row on real kernels and writes this page (` + "`make evade KERNEL=6.12`" + `: on one, and its column).
Each attempt begins before the policies are published, goes on under them, and is *held* when it yields neither the protected
contents, nor a run of the blocked program, nor a change of the read-only file.

- **Every row has its control**: the same attempt by the same caller on the same object, under policies that only audit, just
  before. It has to succeed. A row whose control does not is *NO CONTROL* and a failure, as one that *GOT ROUND* is: a trick
  that does not work shows nothing.
- A *limit* leads round and is known to: [gaps](gaps.md) names it in these words. It is not counted as held.
- Rows *run again by themselves* are of ways that were mended after the whole run.
- ` + "`make evade`" + ` fails unless every row is held or such a limit, and the tests do when this page is not what it left in
  ` + "`test/evade/testdata`" + `, or shows anything else.

`

// render makes the page of the results of a directory.
func render(dir string) ([]byte, error) {
	t, sums, err := readTable(dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(pageHead + strings.Join(sums, "\n") + "\n")
	group := ""
	for _, key := range t.order {
		if key.Group != group {
			group = key.Group
			fmt.Fprintf(&b, "\n## %s\n\n| way | object | caller | %s |\n|---|---|---|%s\n", group, strings.Join(t.kernels, " | "),
				strings.Repeat("---|", len(t.kernels)))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |", key.Way, key.Target, key.Caller)
		for _, kernel := range t.kernels {
			outcome := t.cells[key][kernel]
			if outcome == outcomeLimit {
				outcome += ": " + key.Limit
			}
			fmt.Fprintf(&b, " %s |", outcome)
		}
		b.WriteString("\n")
	}
	return b.Bytes(), nil
}

// TestPage compares the page with the results that are kept, and the limits with what is documented.
func TestPage(t *testing.T) {
	t.Parallel()
	want, err := render(kept)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(pageFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what %s says; -update writes it", pageFile, kept)
	}
	gaps, err := os.ReadFile("../../docs/gaps.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := strings.Join(strings.Fields(string(gaps)), " ")
	table, _, err := readTable(kept)
	if err != nil {
		t.Fatal(err)
	}
	limits := map[string]bool{}
	for key, outcomes := range table.cells {
		for _, kernel := range table.kernels {
			outcome := outcomes[kernel]
			if outcome != outcomeHeld && outcome != outcomeLimit {
				t.Errorf("%s, %s as %s on %s: %s", key.Way, key.Target, key.Caller, kernel, outcome)
			}
		}
		if key.Limit != "" {
			limits[key.Limit] = true
		}
	}
	for _, limit := range slices.Sorted(maps.Keys(limits)) {
		if !strings.Contains(documented, "**"+limit+"**") {
			t.Errorf("the limit %q is not in docs/gaps.md", limit)
		}
	}
}
