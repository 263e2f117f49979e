// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/muster-fleet/muster/policies"
)

// ListMakers are the Allow rules that make the allow-list of a class for a source, of each policy the first; those of the
// class when its names do not tell.
func (rs *Ruleset) ListMakers(class policies.Class, source *ProcessSource) []int {
	var makers, others []int
	for i := range rs.Rules {
		r := &rs.Rules[i]
		switch {
		case r.Rule.Class != class || r.Rule.Action != policies.ActionAllow || r.DryRun:
		case rs.Subject != Host || len(r.Rule.Sources) == 0 || source.isOneOf(r.Sources):
			makers = append(makers, i)
		default:
			others = append(others, i)
		}
	}
	if len(makers) == 0 {
		makers = others
	}
	return rs.MergeAudits(makers)
}

// AuditedPolicy is a policy that denies nothing yet.
type AuditedPolicy struct {
	Policy  policies.ID
	Version string
	// Mode is the ruleset's: ModeAudit when nothing is enforced at all.
	Mode Mode
}

// Audited are the policies of the ruleset that are in audit by themselves or with everything, in its order.
func (rs *Ruleset) Audited() []AuditedPolicy {
	var list []AuditedPolicy
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if n := len(list); r.Version != "" && (n == 0 || list[n-1].Policy != r.Policy) {
			list = append(list, AuditedPolicy{Policy: r.Policy, Version: r.Version, Mode: rs.Mode})
		}
	}
	return list
}

// PolicyVersion names what a policy asks for, wherever it stands and whatever its mode: a soak of one version says nothing
// of another.
func PolicyVersion(p *policies.Policy) string {
	w := canonicalWriter{hash: sha256.New()}
	w.open('[')
	for _, r := range sortedRules(p.Rules) {
		rule := Rule{Policy: p.ID, Rule: r}
		for _, s := range r.Sources {
			rule.Sources = append(rule.Sources, s.Path)
			if s.Dir != "" {
				rule.Directories = append(rule.Directories, Directory{Path: s.Dir, Recursive: s.Recursive})
			}
		}
		w.rule(&rule)
	}
	w.close(']')
	w.flush(0)
	return hex.EncodeToString(w.hash.Sum(nil)[:8])
}
