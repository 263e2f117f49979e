// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command guest drives the measurements inside a machine of the lab: it brings the kernel into each case in turn
// and lets the measured program run there. Every result is one JSON line on stdout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/test/bench"
)

// Idle time costs nothing when instructions are counted. The boot's own work ends within settleBoot; what a change of
// case leaves behind (programs are detached and freed asynchronously) within settleCase.
const (
	settleBoot = 4 * time.Second
	settleCase = time.Second
)

func main() {
	rounds := flag.Int("rounds", 1, "rounds")
	scale := flag.Int("scale", 1, "divide the counts of operations")
	ops := flag.String("ops", "", "rows to measure; empty means all")
	checked := flag.Int("check", 0, "only check that this many rules on files hold")
	flag.Parse()
	if *checked > 0 {
		if err := check(*checked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	work := filepath.Join(filepath.Dir(os.Args[0]), "work")
	d := &driver{
		rounds: *rounds, scale: *scale, out: json.NewEncoder(os.Stdout), work: work,
		operations: bench.Selected(work, bench.Names(*ops)),
	}
	if err := d.run(context.Background(), flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err)
		os.Exit(1)
	}
}

type driver struct {
	rounds, scale int
	out           *json.Encoder
	work          string
	operations    []bench.Operation
	engine        engine
}

// subject is what a case brings into the kernel.
type subject interface {
	// enter brings the kernel into the case; the Load is nil when no ruleset was loaded.
	enter(ctx context.Context) (*bench.Load, error)
	// leave takes it back.
	leave(ctx context.Context) error
}

func (d *driver) run(ctx context.Context, cases []string) error {
	if len(cases) == 0 || cases[0] != bench.Baseline {
		return errors.New("the first case must be " + bench.Baseline)
	}
	if err := makeFiles(cases); err != nil {
		return err
	}
	settle(settleBoot)
	for round := range d.rounds {
		for i, name := range cases {
			if name == bench.Swaps && round > 0 {
				continue
			}
			// The engine stays attached from one of its cases to the next.
			stays := i+1 < len(cases) && isMuster(name) && isMuster(cases[i+1]) && (round == 0 || cases[i+1] != bench.Swaps)
			if err := d.measure(ctx, name, round, stays); err != nil {
				return fmt.Errorf("case %s: %w", name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "bench: round %d of %d done\n", round+1, d.rounds)
	}
	return nil
}

// makeFiles makes what is opened, and the objects of the largest case's rules: they are there in every case.
func makeFiles(cases []string) error {
	paths := []string{
		bench.PathShort, bench.PathSixty, bench.PathBeside, bench.PathLinked, bench.PathSwaps + "-never", bench.PathSwaps + "-always",
	}
	most := 0
	for _, name := range cases {
		if n, ok := bench.Rules(name); ok {
			most = max(most, n)
		}
	}
	for i := range (most + 1) / 2 {
		paths = append(paths, bench.RulePath(i), bench.ProgramPath(i))
	}
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte("data"), 0o644); err != nil {
			return err
		}
	}
	return os.Link(bench.PathLinked, bench.PathLinked+".2")
}

// measure runs every operation once in one case.
func (d *driver) measure(ctx context.Context, name string, round int, stays bool) error {
	s, err := d.subject(name)
	if err != nil {
		return err
	}
	load, err := s.enter(ctx)
	if err != nil {
		return errors.Join(err, s.leave(ctx))
	}
	settle(settleCase)
	if load != nil && name != bench.Swaps {
		load.Case, load.Round = name, round
		if err := d.weigh(load); err != nil {
			return errors.Join(err, s.leave(ctx))
		}
	}
	if err := d.operate(ctx, s, name, round); err != nil {
		return errors.Join(err, s.leave(ctx))
	}
	if stays {
		return nil
	}
	if err := s.leave(ctx); err != nil {
		return err
	}
	settle(settleCase)
	return nil
}

// operate does what is measured in a case.
func (d *driver) operate(ctx context.Context, s subject, name string, round int) error {
	if name == bench.Swaps {
		return d.swap(ctx, s)
	}
	for _, op := range d.operations {
		if err := d.once(ctx, op, name, round); err != nil {
			return err
		}
	}
	return nil
}

// weigh adds what the kernel's objects occupy and reports the load.
func (d *driver) weigh(load *bench.Load) error {
	occupied, err := occupied()
	if err != nil {
		return err
	}
	load.Memory = occupied
	return d.out.Encode(bench.Line{Load: load})
}

func (d *driver) once(ctx context.Context, op bench.Operation, name string, round int) error {
	n := max(1, op.N/d.scale)
	args := []string{op.Verb, strconv.Itoa(n)}
	if op.Path != "" {
		args = append(args, op.Path)
	}
	out, err := exec.CommandContext(ctx, d.work, args...).Output()
	if err != nil {
		return fmt.Errorf("%s: %w", op.Name, err)
	}
	s := bench.Sample{Case: name, Round: round, Op: op.Name, N: n}
	if _, err := fmt.Sscan(string(out), &s.CPU, &s.Wall); err != nil {
		return fmt.Errorf("%s printed %q: %w", op.Name, out, err)
	}
	return d.out.Encode(bench.Line{Sample: &s})
}

// settle lets the machine come to rest; no event tells when it has.
func settle(d time.Duration) { <-time.After(d) }

func isMuster(name string) bool {
	_, ok := bench.Rules(name)
	_, unusual := special[name]
	return ok || unusual || name == bench.Swaps
}

func (d *driver) subject(name string) (subject, error) {
	if name == bench.Baseline {
		return nothing{}, nil
	}
	if name == bench.Empty {
		return &empty{}, nil
	}
	if n, ok := bench.Rules(name); ok {
		return d.engine.with(n)
	}
	if name == bench.Swaps {
		return d.engine.with(0)
	}
	if ruleset, ok := special[name]; ok {
		s, err := d.engine.with(0)
		return &specialCase{s, ruleset}, err
	}
	return nil, fmt.Errorf("no such case")
}

type nothing struct{}

func (nothing) enter(context.Context) (*bench.Load, error) { return nil, nil }
func (nothing) leave(context.Context) error                { return nil }
