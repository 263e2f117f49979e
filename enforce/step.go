// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import "fmt"

func (s StepAttach) String() string {
	return fmt.Sprintf("attach the programs (%s)", s.Reason)
}

func (s StepPublish) String() string {
	text := fmt.Sprintf("publish %d rules for %s in mode %s (%s)", len(s.Ruleset.Rules), s.Ruleset.Subject, s.Ruleset.Mode, s.Ruleset.Digest())
	if s.Ruleset.Held != "" {
		text += ", held: " + s.Ruleset.Held
	}
	return text
}

func (s StepWithdraw) String() string {
	return fmt.Sprintf("withdraw the ruleset of %s", s.Subject)
}

func (StepDetach) String() string { return "remove everything of Muster's from the kernel" }
