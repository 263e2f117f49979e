// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// CompileInput is everything that Compile looks at: nothing else decides what a subject should obey.
type CompileInput struct {
	Subject SubjectID
	// Policies are those selected for the subject, in any order.
	Policies []*policies.Policy
	// Mode is the strongest mode that anything may run in here: the host's, weakened by the wave's. Empty
	// means ModeEnforce.
	Mode         Mode
	Postures     Postures
	Capabilities Capabilities
	// Aliases maps a path as LiteralPaths spells it to the path that it resolves to inside the subject.
	// What resolves to itself is left out.
	Aliases map[string]string
	// Visible are the classes of which the subject's owner wants to hear everything.
	Visible []policies.Class
	// AllowHostAllowlist permits a host-wide Allow without fromSource.
	AllowHostAllowlist bool
}

// Compile turns policies into the ruleset of one subject and the list of what it cannot enforce. The same
// input always gives the same Ruleset; the order of policies does not matter.
func Compile(in CompileInput) (*Ruleset, []Gap) {
	c := compiler{in: in, mode: cmp.Or(in.Mode, ModeEnforce)}
	rs := &Ruleset{Subject: in.Subject, Mode: c.mode, Postures: in.Postures.withDefaults()}
	c.makeRoom()
	for _, p := range sortedPolicies(in.Policies) {
		c.policy(p)
	}
	rs.Rules, rs.Visible = c.rules, c.visible()
	c.gaps = append(c.gaps, excludeComplex(rs, in.Capabilities.Backend)...)
	slices.SortStableFunc(c.gaps, compareGaps)
	return rs, c.gaps
}

// LiteralPaths returns what the caller of Compile should try to resolve inside the subject, sorted: exact
// paths, directories and the directory that a pattern begins with (both with their trailing slash), and
// sources. The resolved spelling must end in a slash where the literal one does.
func LiteralPaths(list []*policies.Policy) []string {
	found := map[string]bool{}
	for _, p := range list {
		for i := range p.Rules {
			r := &p.Rules[i]
			if path := aliasKey(r.Object); path != "" {
				found[path] = true
			}
			for _, s := range r.Sources {
				found[cmp.Or(s.Path, s.Dir)] = true
			}
		}
	}
	delete(found, "")
	delete(found, "/")
	paths := make([]string, 0, len(found))
	for path := range found {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// compiler collects the rules and gaps of one subject.
type compiler struct {
	in    CompileInput
	mode  Mode
	rules []Rule
	gaps  []Gap
}

// visible are the classes that the backend can show, and a gap for each of the others.
func (c *compiler) visible() []policies.Class {
	var shown []policies.Class
	for _, class := range slices.Compact(slices.Sorted(slices.Values(c.in.Visible))) {
		if c.in.Capabilities.Classes[class] {
			shown = append(shown, class)
			continue
		}
		asked := policies.Policy{ID: policies.ID{Kind: "musterd.yaml", Name: "visibility"}}
		c.gap(&asked, -1, classReason(class), "%s does not show what happens in class %s", c.backend(), class)
	}
	return shown
}

// makeRoom has the rules of a large release grow in place.
func (c *compiler) makeRoom() {
	rules, gaps := 0, 0
	for _, p := range c.in.Policies {
		for i := range p.Rules {
			if c.in.Capabilities.Classes[p.Rules[i].Class] {
				rules++
			} else {
				gaps++
			}
		}
	}
	c.rules, c.gaps = slices.Grow(c.rules, rules), slices.Grow(c.gaps, gaps)
}

func (c *compiler) gap(p *policies.Policy, rule int, reason, format string, args ...any) {
	c.gaps = append(c.gaps, Gap{
		Subject: c.in.Subject, Policy: p.ID, Rule: rule,
		Backend: c.in.Capabilities.Backend, Reason: reason, Detail: fmt.Sprintf(format, args...),
	})
}

func (c *compiler) policy(p *policies.Policy) {
	if c.in.Subject != Host && !c.in.Capabilities.Features[FeatureContainerSubject] {
		c.gap(p, -1, FeatureContainerSubject, "%s cannot confine a single container", c.backend())
		return
	}
	mode, ok := c.policyMode(p)
	if !ok {
		c.gap(p, -1, ReasonMode, "label %s has the unknown value %q: taken as %s", ModeLabel, p.Labels[ModeLabel], mode)
	}
	if mode == ModeOff {
		c.gap(p, -1, ReasonMode, "the policy is switched off: no rule of it is in force")
		return
	}
	version := ""
	if mode == ModeAudit {
		version = PolicyVersion(p)
	}
	for _, r := range sortedRules(p.Rules) {
		c.rule(p, r, mode == ModeAudit && c.mode == ModeEnforce, version)
	}
}

// policyMode is the weaker of the subject's mode and the policy's own label. A value that nobody knows was
// meant to weaken the policy, so it is taken as audit, and said.
func (c *compiler) policyMode(p *policies.Policy) (Mode, bool) {
	switch label := Mode(p.Labels[ModeLabel]); label {
	case "", ModeEnforce, ModeAudit, ModeOff:
		return weaker(c.mode, cmp.Or(label, ModeEnforce)), true
	default:
		return weaker(c.mode, ModeAudit), false
	}
}

// rule adds one rule, or the reason why not. dryRun is true for a policy in audit inside a ruleset that
// enforces, version names the contents of one in audit.
func (c *compiler) rule(p *policies.Policy, r policies.Rule, dryRun bool, version string) {
	if reason, detail := c.unsupported(&r); reason != "" {
		c.gap(p, r.Index, reason, "%s", detail)
		return
	}
	if r.Class == policies.ClassSyscalls && !c.syscalls(p, &r) {
		return
	}
	if c.hostWideAllow(&r) {
		c.gap(p, r.Index, ReasonHostAllowList, "a host-wide Allow without fromSource would make an allow-list for the whole host; "+
			"it is refused unless the agent's configuration says allowHostAllowlist: true")
		return
	}
	compiled := Rule{
		Policy:  p.ID,
		Rule:    r,
		Objects: c.objects(r.Object),
		Sources: c.sources(r.Sources),
		DryRun:  dryRun && r.Action != policies.ActionAudit,
		Version: version,

		Directories: c.directories(r.Sources),
	}
	if detail := c.byNameOnly(&compiled); detail != "" {
		c.gap(p, r.Index, FeatureHardLink, "%s", detail)
	}
	c.rules = append(c.rules, compiled)
}

// unsupported says which class or feature that the rule needs is missing from the backend.
func (c *compiler) unsupported(r *policies.Rule) (reason, detail string) {
	if !c.in.Capabilities.Classes[r.Class] {
		return classReason(r.Class), fmt.Sprintf("%s does not enforce %s rules", c.backend(), r.Class)
	}
	if r.Class == policies.ClassPreset {
		if detail := idlePreset(r); detail != "" {
			return ReasonClass, detail
		}
	}
	for _, need := range [...]struct {
		needed  bool
		feature string
		what    string
	}{
		{r.Object.Kind == policies.ObjectPattern, FeaturePattern, "patterns"},
		{r.Object.Kind == policies.ObjectExecName, FeatureExecName, "execname"},
		{r.OwnerOnly, FeatureOwnerOnly, "ownerOnly"},
		{r.NoTerminal, FeaturePts, "pts"},
		{r.HasArgs, FeatureAllowedArgs, "allowedArgs"},
		{hasQuota(r), FeatureQuota, "a limit on how much may flow"},
	} {
		if need.needed && !c.in.Capabilities.Features[need.feature] {
			return need.feature, fmt.Sprintf("%s cannot express %s", c.backend(), need.what)
		}
	}
	return "", ""
}

// idlePreset says why a preset has nothing to enforce.
func idlePreset(r *policies.Rule) string {
	switch {
	case r.Object.Value == "exec":
		return "preset exec: which processes entered a container is not known yet"
	case r.Action == policies.ActionAllow:
		return "preset " + r.Object.Value + " with action Allow grants nothing: leave it out, or write Block or Audit"
	}
	return ""
}

// classReason is SCENARIOS' word for a class that is not enforced, where it has one.
func classReason(class policies.Class) string {
	switch class {
	case policies.ClassDNS:
		return ReasonDNS
	case policies.ClassSyscalls:
		return ReasonSyscalls
	default:
		return ReasonClass
	}
}

// hostWideAllow: "A host-wide Allow without fromSource is refused unless the agent's configuration says
// allowHostAllowlist: true".
func (c *compiler) hostWideAllow(r *policies.Rule) bool {
	return c.in.Subject == Host && !c.in.AllowHostAllowlist &&
		r.Action == policies.ActionAllow && len(r.Sources) == 0
}

// byNameOnly says that an exact-path Block holds for names only here, which leaves other names of the file.
func (c *compiler) byNameOnly(r *Rule) string {
	f := c.in.Capabilities.Features
	if !protectsFile(r) || !isPathClass(r.Rule.Class) || f[FeatureHardLink] && f[FeatureRename] && f[FeatureBindMount] {
		return ""
	}
	return fmt.Sprintf("%s protects names: another hard link, a rename or a bind mount of %s is not covered", c.backend(), r.Rule.Object.Value)
}

func (c *compiler) backend() string { return cmp.Or(c.in.Capabilities.Backend, "no backend") }

// objects returns the spellings of an object: as written, then resolved.
func (c *compiler) objects(o policies.Object) []string {
	objects := []string{o.Value}
	key := aliasKey(o)
	resolved, ok := c.in.Aliases[key]
	if key == "" || !ok || resolved == key {
		return objects
	}
	if strings.HasSuffix(key, "/") && !strings.HasSuffix(resolved, "/") {
		resolved += "/"
	}
	if o.Kind == policies.ObjectPattern {
		// What follows the directory keeps its special characters; what the directory resolves to has none.
		resolved = escapePattern(resolved) + afterDirectory(o.Value)
	}
	return append(objects, resolved)
}

// sources returns the source paths as written, then their resolved spellings, without repetition.
func (c *compiler) sources(list []policies.Source) []string {
	var paths []string
	add := func(path string) {
		if path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, s := range list {
		add(s.Path)
	}
	for _, s := range list {
		if s.Path != "" {
			add(c.in.Aliases[s.Path])
		}
	}
	return paths
}

func (p Postures) withDefaults() Postures {
	return Postures{
		File:         cmp.Or(p.File, PostureAudit),
		Network:      cmp.Or(p.Network, PostureAudit),
		Capabilities: cmp.Or(p.Capabilities, PostureAudit),
	}
}

// weaker is the weaker of two modes.
func weaker(a, b Mode) Mode {
	for _, m := range [...]Mode{ModeOff, ModeAudit} {
		if a == m || b == m {
			return m
		}
	}
	return ModeEnforce
}

func sortedPolicies(list []*policies.Policy) []*policies.Policy {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b *policies.Policy) int { return compareIDs(a.ID, b.ID) })
	return sorted
}

func sortedRules(list []policies.Rule) []policies.Rule {
	byIndex := func(a, b policies.Rule) int { return cmp.Compare(a.Index, b.Index) }
	if slices.IsSortedFunc(list, byIndex) {
		return list
	}
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, byIndex)
	return sorted
}

func compareIDs(a, b policies.ID) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func compareGaps(a, b Gap) int {
	return cmp.Or(compareIDs(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Reason, b.Reason))
}
