// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/muster-fleet/muster/bundles"
)

// lostRace are the words in which go-git v5 and Git servers say that the branch moved. There is no error
// value for it: go-git builds these from text (docs: research/gitops.md §4.2; seen in our own tests).
var lostRace = []string{
	"non-fast-forward update", "failed to update ref", "cannot lock ref", "fetch first",
	"incorrect old value", "reference already exists", "failed to push some refs",
}

// permanent are the words of refusals that trying again does not help.
var permanent = []string{
	"protected branch", "GH006", "GH013", "hook declined", "deny updating a hidden ref",
}

// classifyPush tells a lost race (try again on the new tip) from everything else.
func classifyPush(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, p := range permanent {
		if strings.Contains(text, p) {
			return bundles.NewRefusal(bundles.ErrPublishBlocked, err, "the server does not accept the push")
		}
	}
	// The old tip is not among our objects: somebody pushed after we fetched.
	if errors.Is(err, plumbing.ErrObjectNotFound) || strings.Contains(text, plumbing.ErrObjectNotFound.Error()) {
		return fmt.Errorf("%w: %w", bundles.ErrLostRace, err)
	}
	for _, p := range lostRace {
		if strings.Contains(text, p) {
			return fmt.Errorf("%w: %w", bundles.ErrLostRace, err)
		}
	}
	return err
}
