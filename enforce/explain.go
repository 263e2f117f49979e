// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"fmt"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// Explanation says which rules an operation meets and why it is decided as it is.
type Explanation struct {
	Decision Decision `json:"decision"`
	// Denied is whether the operation fails.
	Denied bool `json:"denied"`
	// Why is the reason in one sentence.
	Why string `json:"why"`
	// Rules are those of the class whose object matches, most of them with their say.
	Rules []ExplainedRule `json:"rules"`
	// AllowList is true when an allow-list of the class holds for this source.
	AllowList bool    `json:"allowList"`
	Posture   Posture `json:"posture"`
}

// ExplainedRule is one rule whose object matches the operation.
type ExplainedRule struct {
	Number   int               `json:"number"`
	Policy   policies.ID       `json:"policy"`
	Index    int               `json:"index"`
	Position policies.Position `json:"position"`
	Action   policies.Action   `json:"action"`
	DryRun   bool              `json:"dryRun,omitempty"`
	Object   policies.Object   `json:"object"`
	// Matched is the spelling that matched; ByMark is true when the file is known by its inode only.
	Matched string `json:"matched"`
	ByMark  bool   `json:"byMark,omitempty"`
	// Source is the source that matched a rule with fromSource; SourceByMark as above.
	Source       string `json:"source,omitempty"`
	SourceByMark bool   `json:"sourceByMark,omitempty"`
	// Rank is how specific the rule is, in words.
	Rank string `json:"rank"`
	// Fires is false when Silent says what keeps the rule from taking part.
	Fires  bool   `json:"fires"`
	Silent string `json:"silent,omitempty"`
	// Decides marks the one rule that decided.
	Decides bool `json:"decides,omitempty"`
}

// Explain decides the operation and says how.
func (rs *Ruleset) Explain(op Operation) Explanation {
	e := Explanation{Decision: rs.Decide(op), Posture: rs.Postures.Of(op.Class), Rules: []ExplainedRule{}}
	e.Denied = e.Decision.Verdict == Deny
	e.AllowList = rs.allowListed(op.Class, &op.Source, nil)
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Class != op.Class {
			continue
		}
		if matched, byMark, ok := matchObject(r, &op); ok {
			e.Rules = append(e.Rules, explainRule(r, i, &op, matched, byMark, e.Decision.Rule == i))
		}
	}
	e.Why = rs.why(&op, e) + rs.whyDry(e.Decision)
	return e
}

func explainRule(r *Rule, number int, op *Operation, matched string, byMark, decides bool) ExplainedRule {
	x := ExplainedRule{
		Number: number, Policy: r.Policy, Index: r.Rule.Index, Position: r.Rule.Position,
		Action: r.Rule.Action, DryRun: r.DryRun, Object: r.Rule.Object,
		Matched: matched, ByMark: byMark, Rank: rankOf(r).String(), Decides: decides,
	}
	source, sourceByMark, ok := matchSource(r, &op.Source)
	x.Source, x.SourceByMark = source, sourceByMark
	switch {
	case !ok:
		x.Silent = "source is none of " + strings.Join(r.Sources, ", ")
	case !fires(&r.Rule, op):
		x.Silent = "its modifiers leave this operation alone (" + modifiers(&r.Rule) + ")"
	default:
		x.Fires = true
	}
	return x
}

// String is the rank in words.
func (a Rank) String() string {
	var b strings.Builder
	if a.FromSource {
		b.WriteString("fromSource, ")
	}
	b.WriteString(a.Object.String())
	switch {
	case a.Object == RankPattern:
		fmt.Fprintf(&b, " with a literal prefix of %d bytes", a.Length)
	case a.Object == RankDirectory && a.Flat:
		fmt.Fprintf(&b, " of %d bytes, not recursive", a.Length)
	case a.Object == RankDirectory:
		fmt.Fprintf(&b, " of %d bytes, recursive", a.Length)
	}
	return b.String()
}

// modifiers names the modifiers that a rule has, as they are written in YAML.
func modifiers(r *policies.Rule) string {
	var names []string
	for _, m := range [...]struct {
		set  bool
		name string
	}{
		{r.OwnerOnly, "ownerOnly"},
		{r.ReadOnly, "readOnly"},
		{r.NoTerminal, "pts: false"},
		{r.HasArgs, "allowedArgs"},
	} {
		if m.set {
			names = append(names, m.name)
		}
	}
	return strings.Join(names, ", ")
}

// whyDry names the policies in dry run that would have denied it.
func (rs *Ruleset) whyDry(d Decision) string {
	var b strings.Builder
	for _, run := range d.DryRuns {
		fmt.Fprintf(&b, "; %s, which is in dry run, would deny it ", describe(rs.Rules[run.Rule].Policy))
		switch {
		case run.Posture:
			b.WriteString("by the default posture of its allow-list")
		case run.Unbuildable:
			b.WriteString("because the path cannot be built")
		default:
			fmt.Fprintf(&b, "by its rule %d", rs.Rules[run.Rule].Rule.Index)
		}
	}
	return b.String()
}

// why is the reason in one sentence.
func (rs *Ruleset) why(op *Operation, e Explanation) string {
	d := e.Decision
	outcome := "permitted"
	switch {
	case e.Denied:
		outcome = "denied"
	case d.WouldDeny && rs.Held != "":
		outcome = "permitted only because the host's ruleset is held"
	case d.WouldDeny && rs.Mode == ModeAudit:
		outcome = "permitted only because the ruleset is in audit mode"
	}
	switch {
	case d.Rule >= 0:
		r := &rs.Rules[d.Rule]
		return fmt.Sprintf("%s: %s rule %d of %s is the most specific that fires (%s)",
			outcome, r.Rule.Action, r.Rule.Index, describe(r.Policy), rankOf(r))
	case d.Unbuildable:
		return fmt.Sprintf("%s: the path cannot be built, and class %s has a Block or an Allow rule", outcome, op.Class)
	case d.Posture:
		return fmt.Sprintf("%s: no rule fires, an allow-list of class %s holds, and its default posture is %s", outcome, op.Class, e.Posture)
	default:
		return fmt.Sprintf("%s: no rule fires and no allow-list of class %s holds", outcome, op.Class)
	}
}
