// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/test/vm"
)

// roundsAtRest are those that the agent's loop makes before its memory is read: each asks the source and looks at the kernel.
const roundsAtRest = 10

// TestLabFootprint tells the memory of an agent that enforces one rule, 1,000 and 10,000, ten in a policy. `make bench` reads
// the lines that begin with "measured".
func TestLabFootprint(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	l := newLab(t)
	paths := make([]string, 10_000)
	for i := range paths {
		paths[i] = l.file(fmt.Sprint("file-", i))
	}
	l.publishNext(blocking("footprint", paths[0]))
	l.run(agentOne)
	for _, rules := range []int{1, 1000, 10_000} {
		files := map[string][]byte{}
		for few := range slices.Chunk(paths[:rules], 10) {
			name := filepath.Base(few[0])
			files[name+".yaml"] = blocking(name, few...)["p.yaml"]
		}
		l.publishNext(files)
		l.settle()
		l.denied(paths[rules-1])
		status, err := l.client.Status(t.Context())
		l.must(err)
		l.wait("rounds", func() bool {
			now, err := l.client.Status(t.Context())
			return err == nil && now.Rounds >= status.Rounds+roundsAtRest
		})
		t.Logf("measured rss-%d %.1f", rules, float64(l.resident())/1e6)
		l.denied(paths[rules-1])
	}
}

// resident are the bytes of memory that the agent has.
func (l *lab) resident() int {
	l.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.agent.Process.Pid))
	l.must(err)
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	var kilobytes int
	_, err = fmt.Sscanf(after, "%d kB", &kilobytes)
	l.must(err)
	return kilobytes * 1024
}
