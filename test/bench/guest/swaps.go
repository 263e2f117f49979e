// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/test/bench"
)

// swap has two rulesets take turns while another program tries files: one that both block, and one that neither does.
func (d *driver) swap(ctx context.Context, s subject) error {
	m, ok := s.(*muster)
	if !ok {
		return errNotEnforced
	}
	var turns [2]*enforce.Ruleset
	for i := range turns {
		text := head + fmt.Sprintf("  file:\n    matchPaths:\n    - path: %s-never\n    - path: %s-%d\n", bench.PathSwaps, bench.PathSwaps, i)
		var err error
		if turns[i], err = m.compile(parsed(text), 2); err != nil {
			return err
		}
	}
	if err := m.backend.Apply(ctx, enforce.StepPublish{Ruleset: turns[0]}); err != nil {
		return err
	}
	result := bench.SwapResult{Operations: max(2, bench.SwapOperations/d.scale)}
	var out bytes.Buffer
	work := exec.CommandContext(ctx, d.work, "watch", strconv.Itoa(result.Operations/2), bench.PathSwaps)
	work.Stdout = &out
	if err := work.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- work.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			if _, err := fmt.Sscan(out.String(), &result.Leaked, &result.Refused, &result.Other); err != nil {
				return fmt.Errorf("watch printed %q: %w", out.String(), err)
			}
			return d.out.Encode(bench.Line{Swaps: &result})
		default:
		}
		result.Swaps++
		if err := m.backend.Apply(ctx, enforce.StepPublish{Ruleset: turns[result.Swaps%2]}); err != nil {
			return err
		}
	}
}
