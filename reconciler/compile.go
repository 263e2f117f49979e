// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/policies"
)

// compileInput is everything that a ruleset depends on; when none of it changed nothing is compiled again.
type compileInput struct {
	sets     []*policies.Set
	settings *Settings
	node     inventory.Node
	mode     enforce.Mode
	aliases  map[string]string
	caps     enforce.Capabilities
	protect  []enforce.ProtectPair
	// paths are those that aliases were asked for.
	paths []string
}

// compiled is what a release asks of this host.
type compiled struct {
	input    *compileInput
	rulesets []*enforce.Ruleset
	gaps     []enforce.Gap
	held     string
}

// host returns the host's own ruleset, nil before there is one.
func (c *compiled) host() *enforce.Ruleset {
	for _, rs := range c.rulesets {
		if rs.Subject == enforce.Host {
			return rs
		}
	}
	return nil
}

// compile brings releases down to this host's rulesets, all of them united. The host's paths are resolved anew each time, since
// a symlink may have changed; the rest is done again only when something did change.
func (l *Loop) compile(before compiled, sets []*policies.Set, mode enforce.Mode) compiled {
	node, known := l.deps.Host.Node()
	if len(sets) == 0 || !known {
		return compiled{}
	}
	var selected []*policies.Policy
	for _, set := range sets {
		selected = append(selected, policies.Select(set, subjectOf(node))...)
	}
	paths := enforce.LiteralPaths(selected)
	input := &compileInput{
		sets: sets, settings: l.settings, node: node, mode: mode,
		paths: paths, aliases: l.deps.Host.Resolve(paths),
		caps:    l.deps.Backend.Capabilities(),
		protect: l.deps.Host.Protect(),
	}
	for _, known := range []compiled{before, l.know.trial} {
		if known.input.equal(input) {
			return known
		}
	}
	return compileHost(input.forHost(selected), input.protect, input)
}

// rulesOf are the rules of one set for this host. Where its paths lead does not matter to who asks.
func (l *Loop) rulesOf(set *policies.Set) *enforce.Ruleset {
	if in := l.know.compiled.input; in != nil && in.settings == l.settings && in.mode == enforce.ModeEnforce && slices.Equal(in.sets, []*policies.Set{set}) {
		return l.know.compiled.host()
	}
	node, known := l.deps.Host.Node()
	if !known {
		return nil
	}
	input := &compileInput{settings: l.settings, node: node, mode: enforce.ModeEnforce, caps: l.deps.Backend.Capabilities()}
	rs, _ := enforce.Compile(input.forHost(policies.Select(set, subjectOf(node))))
	return rs
}

func (in *compileInput) forHost(selected []*policies.Policy) enforce.CompileInput {
	return enforce.CompileInput{
		Subject: enforce.Host, Policies: selected, Mode: in.mode, Capabilities: in.caps,
		Postures: in.settings.Config.EnforcePostures(), Visible: in.settings.Config.Visibility, Aliases: in.aliases,
		AllowHostAllowlist: in.settings.Config.AllowHostAllowlist,
	}
}

// equal is true when both would compile to the same; a nil input equals nothing.
func (in *compileInput) equal(other *compileInput) bool {
	return in != nil && slices.Equal(in.sets, other.sets) && in.settings == other.settings && in.mode == other.mode &&
		maps.Equal(in.aliases, other.aliases) && reflect.DeepEqual(in.node, other.node) &&
		reflect.DeepEqual(in.caps, other.caps) && reflect.DeepEqual(in.protect, other.protect)
}

// leadElsewhere is true when the paths of a ruleset resolve to something else than when it was compiled.
func (l *Loop) leadElsewhere() bool {
	for _, c := range []compiled{l.know.compiled, l.know.beside} {
		if in := c.input; in != nil && !maps.Equal(in.aliases, l.deps.Host.Resolve(in.paths)) {
			return true
		}
	}
	return false
}

// compileHost compiles the host's ruleset and holds it when it would deny what keeps the host manageable.
func compileHost(in enforce.CompileInput, protect []enforce.ProtectPair, from *compileInput) compiled {
	rs, gaps := enforce.Compile(in)
	out := compiled{input: from, gaps: gaps}
	if rs.Mode == enforce.ModeEnforce {
		if why := enforce.CheckProtect(rs, protect); why != "" {
			out.held = why
			rs = rs.Hold(why)
		}
	}
	out.rulesets = []*enforce.Ruleset{rs}
	return out
}

// subjectOf is the host as policies select it.
func subjectOf(node inventory.Node) policies.Subject {
	return policies.Subject{Host: true, Labels: node.Labels}
}

// ruleKey is what makes two rules of two releases the same promise: everything but their place.
func ruleKey(r *enforce.Rule) string {
	plain := *r
	plain.Rule.Index, plain.Rule.Position = 0, policies.Position{}
	plain.Rule.Message, plain.Rule.Tags, plain.Rule.Severity = "", nil, 0
	plain.Objects, plain.Sources = nil, nil // resolved on this host, not written by anybody
	return canonical(plain)
}

// removesTooMuch is true when after holds less than half of what before held: rules that were replaced by
// as many others are a change, not a removal.
func removesTooMuch(before, after *enforce.Ruleset) bool {
	if before == nil || len(before.Rules) == 0 {
		return false
	}
	left := map[string]int{}
	was, is := unshared(before, after)
	for _, r := range was {
		left[ruleKey(r)]++
	}
	added := 0
	for _, r := range is {
		if key := ruleKey(r); left[key] > 0 {
			left[key]--
		} else {
			added++
		}
	}
	removed := 0
	for _, n := range left {
		removed += n
	}
	return 2*(removed-added) > len(before.Rules)
}

// unshared leaves out what both have at its place: of ten thousand rules one may have changed.
func unshared(a, b *enforce.Ruleset) (onlyA, onlyB []*enforce.Rule) {
	i, j := 0, 0
	for i < len(a.Rules) && j < len(b.Rules) {
		x, y := &a.Rules[i], &b.Rules[j]
		switch c := comparePlaces(x, y); {
		case c < 0:
			onlyA = append(onlyA, x)
			i++
		case c > 0:
			onlyB = append(onlyB, y)
			j++
		default:
			if x.DryRun != y.DryRun || !reflect.DeepEqual(x.Rule, y.Rule) {
				onlyA, onlyB = append(onlyA, x), append(onlyB, y)
			}
			i, j = i+1, j+1
		}
	}
	for ; i < len(a.Rules); i++ {
		onlyA = append(onlyA, &a.Rules[i])
	}
	for ; j < len(b.Rules); j++ {
		onlyB = append(onlyB, &b.Rules[j])
	}
	return onlyA, onlyB
}

// comparePlaces orders rules as rulesets do.
func comparePlaces(a, b *enforce.Rule) int {
	p, q := a.Policy, b.Policy
	return cmp.Or(cmp.Compare(p.Kind, q.Kind), cmp.Compare(p.Namespace, q.Namespace), cmp.Compare(p.Name, q.Name), cmp.Compare(a.Rule.Index, b.Rule.Index))
}
