// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"context"
	"fmt"

	"github.com/muster-fleet/muster/enforce"
)

// ObserveOnly is the backend of a host whose kernel offers none: it can express nothing, so every rule is a
// gap that the report shows, and it touches nothing.
type ObserveOnly struct{}

// Name is "observe".
func (ObserveOnly) Name() string { return "observe" }

// Capabilities are none.
func (ObserveOnly) Capabilities() enforce.Capabilities {
	return enforce.Capabilities{Backend: "observe"}
}

// Observe finds nothing, and that is the truth.
func (ObserveOnly) Observe(context.Context, []*enforce.Ruleset) (enforce.State, error) {
	return enforce.State{Backend: "observe"}, nil
}

// Apply refuses: no plan for this backend has a step.
func (ObserveOnly) Apply(_ context.Context, step enforce.Step) error {
	return fmt.Errorf("backend observe cannot %s", step)
}
