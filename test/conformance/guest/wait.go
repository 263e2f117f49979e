// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"fmt"
	"time"
)

// pace is how often a condition of the machine is looked at again.
const pace = 20 * time.Millisecond

// until looks at a condition until it holds, fails or ctx ends.
func until(ctx context.Context, condition func() (bool, error)) error {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		done, err := condition()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}
