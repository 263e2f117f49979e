// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforcetest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	fake := enforcetest.NewFake(enforcetest.Capabilities("fake"))
	backend := func(*testing.T) enforce.Backend { return fake }
	enforcetest.Contract(t, backend, backend)
}

func TestFakeFailsAndDrifts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fake := enforcetest.NewFake(enforcetest.Capabilities("fake"))
	rs := enforcetest.NewGenerator(1).Ruleset(3)
	if err := fake.Apply(ctx, enforce.StepPublish{Ruleset: rs}); err == nil {
		t.Error("published without being attached")
	}
	failure := errors.New("no memory")
	fake.Fail(failure)
	if err := fake.Apply(ctx, enforce.StepAttach{}); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	for _, step := range []enforce.Step{enforce.StepAttach{}, enforce.StepPublish{Ruleset: rs}} {
		if err := fake.Apply(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	fake.Tamper(rs.Subject, enforce.SubjectState{Digest: rs.Digest(), Mode: rs.Mode})
	fake.Detach()
	state, err := fake.Observe(ctx, []*enforce.Ruleset{rs})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[enforce.DriftKind]bool{}
	for _, d := range enforce.Diff(enforce.DiffInput{Want: []*enforce.Ruleset{rs}, Have: state}) {
		kinds[d.Kind] = true
	}
	if !kinds[enforce.DriftAltered] || !kinds[enforce.DriftDetached] {
		t.Errorf("kinds %v", kinds)
	}
	if len(fake.Steps()) != 4 {
		t.Errorf("steps %q", fake.Steps())
	}
}
