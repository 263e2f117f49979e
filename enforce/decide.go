// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// Decide is the reference decision: SEMANTICS "Decision", word by word, by looking at every rule. It is
// what automata, rows and kernels are tested against, so it shares no code with them but the ranking.
func (rs *Ruleset) Decide(op Operation) Decision { return rs.inMode(rs.decideOne(&op)) }

// DecideAll decides an operation that touches several objects: "the first denied one decides, old name before new". Of
// what nobody denies no rule is named.
func (rs *Ruleset) DecideAll(ops ...Operation) Decision {
	all := Decision{Rule: -1}
	var audits [][]int
	var runs [][]DryRun
	for i := range ops {
		d := rs.decideOne(&ops[i])
		// "5. Audit rules never change the verdict", nor does the verdict on one object change what is reported of
		// another.
		audits, runs = append(audits, d.Audits), append(runs, d.DryRuns)
		switch {
		case all.Verdict == Deny:
		case d.Verdict == Deny:
			all = d
		default:
			all.Posture, all.WouldDeny = all.Posture || d.Posture, all.WouldDeny || d.WouldDeny
		}
	}
	all.Audits = rs.MergeAudits(audits...)
	if all.Verdict == Permit {
		all.DryRuns = rs.MergeDryRuns(runs...)
	}
	return rs.inMode(all)
}

// decideOne decides on one object, and says who in dry run would deny what is permitted.
func (rs *Ruleset) decideOne(op *Operation) Decision {
	d := rs.decideAs(op, nil)
	d.Audits = rs.audits(op)
	if d.Verdict == Permit {
		d.DryRuns = rs.dryRuns(op)
	}
	return d
}

// decideAs decides as if the policy in trial were enforced; without one, none that is in dry run takes part.
func (rs *Ruleset) decideAs(op *Operation, trial *policies.ID) Decision {
	d := Decision{Rule: -1}
	switch {
	case op.NoPath && isPathClass(op.Class):
		// "a path that cannot be built […] is denied when the class has a Block or an Allow rule for the
		// subject"
		if rs.restricts(op.Class, trial) {
			d.Verdict, d.Unbuildable = Deny, true
		}
	default:
		rs.decide(op, &d, trial)
	}
	return d
}

// inMode: in audit mode the same is decided, and nothing is denied.
func (rs *Ruleset) inMode(d Decision) Decision {
	if rs.Mode == ModeAudit && d.Verdict == Deny {
		d.Verdict, d.WouldDeny = Permit, true
	}
	return d
}

// decide follows steps 1 to 4.
func (rs *Ruleset) decide(op *Operation, d *Decision, trial *policies.ID) {
	var best Rank
	for i := range rs.Rules {
		r := &rs.Rules[i]
		// "1. Match. Every Allow and Block rule of the class […] whose object and source match and whose
		// modifiers let it fire."
		if !r.takesPart(trial) || !r.matches(op) {
			continue
		}
		// "2. Rank by the most specific" and "3. Decide by the highest rank; at equal rank Block beats
		// Allow." Rules are sorted, so of several that decide alike the smallest stays.
		rank, verdict := rankOf(r), r.verdict()
		order := rank.Compare(best)
		if d.Rule < 0 || order > 0 || order == 0 && verdict == Deny && d.Verdict == Permit {
			best, d.Rule, d.Verdict = rank, i, verdict
		}
	}
	// "Mapping shared libraries is otherwise not running them": no allow-list has to name them.
	if d.Rule >= 0 || op.Mapped || !rs.allowListed(op.Class, &op.Source, trial) {
		return // "otherwise the operation is permitted"
	}
	// "4. No match: if the subject has at least one Allow rule of that class, the class's default posture
	// decides."
	d.Posture = true
	if rs.Postures.Of(op.Class) == PostureBlock {
		d.Verdict = Deny
	} else {
		d.WouldDeny = true
	}
}

// audits: "5. Audit rules never change the verdict. […] each policy with a matching Audit rule emits one
// event under its own name". Of several rules of one policy the first stands for it.
func (rs *Ruleset) audits(op *Operation) []int {
	var audits []int
	for i := range rs.Rules {
		r := &rs.Rules[i]
		if r.Rule.Action != policies.ActionAudit || len(audits) > 0 && rs.Rules[audits[len(audits)-1]].Policy == r.Policy {
			continue
		}
		if r.matches(op) {
			audits = append(audits, i)
		}
	}
	return audits
}

// matches says whether class, object and source match and the modifiers let the rule fire.
func (r *Rule) matches(op *Operation) bool {
	if r.Rule.Class != op.Class || op.Mapped && !r.isForMapping() {
		return false
	}
	if _, _, ok := matchObject(r, op); !ok {
		return false
	}
	if _, _, ok := matchSource(r, &op.Source); !ok {
		return false
	}
	return fires(&r.Rule, op)
}

// isForMapping: "for a Block with an exact path, execname or pattern any executable mapping of that file
// counts". An Allow that would let the file be run lets it be mapped; an Audit reports what is run.
func (r *Rule) isForMapping() bool {
	switch r.Rule.Action {
	case policies.ActionAllow:
		return true
	case policies.ActionBlock:
		return r.Rule.Object.Kind != policies.ObjectDirectory
	default:
		return false
	}
}

// takesPart says whether the rule takes part in verdicts when the policy in trial is enforced.
func (r *Rule) takesPart(trial *policies.ID) bool {
	return r.Rule.Action != policies.ActionAudit && (!r.DryRun || trial != nil && r.Policy == *trial)
}

func (r *Rule) verdict() Verdict {
	if r.Rule.Action == policies.ActionBlock {
		return Deny
	}
	return Permit
}

// restricts says whether the class has a Block or an Allow rule for the subject.
func (rs *Ruleset) restricts(class policies.Class, trial *policies.ID) bool {
	for i := range rs.Rules {
		if rs.Rules[i].Rule.Class == class && rs.Rules[i].takesPart(trial) {
			return true
		}
	}
	return false
}

// allowListed says whether an allow-list of the class holds for this source.
//
// "if the subject has at least one Allow rule of that class […]. On the host an Allow with fromSource makes
// an allow-list for those sources only." Here a source's mark counts: renaming a confined program must not
// take it off the list that confines it.
func (rs *Ruleset) allowListed(class policies.Class, source *ProcessSource, trial *policies.ID) bool {
	for i := range rs.Rules {
		if r := &rs.Rules[i]; r.takesPart(trial) && rs.makesList(r, class, source) {
			return true
		}
	}
	return false
}

// makesList says whether the rule makes an allow-list of the class for this source.
func (rs *Ruleset) makesList(r *Rule, class policies.Class, source *ProcessSource) bool {
	return r.Rule.Class == class && r.Rule.Action == policies.ActionAllow &&
		(rs.Subject != Host || len(r.Rule.Sources) == 0 || source.isOneOf(r.Sources))
}

// isOneOf says whether the executable or a script is one of paths, by name or by mark.
func (s *ProcessSource) isOneOf(paths []string) bool {
	known := append(s.Names(), s.Marks()...)
	return slices.ContainsFunc(paths, func(p string) bool { return slices.Contains(known, p) })
}

// Of is the posture of a class: "Process and file […] both use the file posture"; sockets, names and flows all use
// the network posture.
func (p Postures) Of(class policies.Class) Posture {
	switch class {
	case policies.ClassProcess, policies.ClassFile:
		return p.File
	case policies.ClassNetwork, policies.ClassDNS, policies.ClassIngress, policies.ClassEgress:
		return p.Network
	case policies.ClassCapabilities:
		return p.Capabilities
	default:
		return PostureAudit
	}
}

// isPathClass says whether the class's objects are paths.
func isPathClass(class policies.Class) bool {
	return class == policies.ClassProcess || class == policies.ClassFile
}
