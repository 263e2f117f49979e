// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package enforcetest is what tests of package enforce and of its backends share: random rulesets and
// operations, the same decision made through automata and rows, a contract that every backend keeps, and a
// fake backend.
package enforcetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Capabilities are those of a backend that can do all that rows can say.
func Capabilities(backend string) enforce.Capabilities {
	caps := enforce.Capabilities{
		Backend:  backend,
		Classes:  map[policies.Class]bool{},
		Features: map[string]bool{},
	}
	for _, class := range classes {
		caps.Classes[class] = true
	}
	for _, f := range []string{
		enforce.FeaturePattern, enforce.FeatureExecName, enforce.FeatureOwnerOnly, enforce.FeaturePts,
		enforce.FeatureAllowedArgs, enforce.FeatureContainerSubject, enforce.FeatureHardLink, enforce.FeatureRename, enforce.FeatureBindMount,
	} {
		caps.Features[f] = true
	}
	return caps
}

// classes are those that the generator's rules and operations are of.
var classes = []policies.Class{
	policies.ClassProcess, policies.ClassFile, policies.ClassNetwork, policies.ClassDNS, policies.ClassCapabilities,
	policies.ClassSyscalls, policies.ClassPreset, policies.ClassIngress, policies.ClassEgress,
}

// named are what rules of the classes without paths speak of; few, so that they meet.
var named = map[policies.Class][]policies.Object{
	policies.ClassNetwork: {
		{Kind: policies.ObjectProtocol, Value: "tcp"},
		{Kind: policies.ObjectProtocol, Value: "stream"},
		{Kind: policies.ObjectProtocol, Value: "all"},
		{Kind: policies.ObjectProtocol, Value: "raw"},
	},
	policies.ClassDNS: {
		{Kind: policies.ObjectDomain, Value: "example"},
		{Kind: policies.ObjectDomain, Value: "a.example"},
		{Kind: policies.ObjectDomain, Value: "b.a.Example"},
		{Kind: policies.ObjectDomain, Value: "example.org"},
	},
	policies.ClassPreset: {
		{Kind: policies.ObjectPreset, Value: "filelessExec"},
		{Kind: policies.ObjectPreset, Value: "protectProc"},
		{Kind: policies.ObjectPreset, Value: "protectEnv"},
		{Kind: policies.ObjectPreset, Value: "exec"},
	},
	policies.ClassCapabilities: {
		{Kind: policies.ObjectCapability, Value: "chown"},
		{Kind: policies.ObjectCapability, Value: "net_raw"},
		{Kind: policies.ObjectCapability, Value: "bpf"},
	},
}

// Generator makes random rulesets and operations over a small alphabet, so that rules meet. The same seed
// gives the same sequence everywhere.
type Generator struct{ r *rand.Rand }

// NewGenerator starts a sequence.
func NewGenerator(seed uint64) *Generator {
	return &Generator{r: rand.New(rand.NewPCG(seed, 0x6d7573746572))}
}

// Ruleset is a compiled ruleset of at most the given number of rules . Host
// subjects, containers, postures and modes alternate at random.
func (g *Generator) Ruleset(rules int) *enforce.Ruleset {
	rs, gaps := enforce.Compile(g.Input(rules))
	for _, gap := range gaps {
		if gap.Reason == enforce.ReasonPatternComplexity {
			panic(gap.Detail) // rules of this size always fit
		}
	}
	return rs
}

// Input is what Ruleset compiles.
func (g *Generator) Input(rules int) enforce.CompileInput {
	in := enforce.CompileInput{
		Subject:            enforce.Host,
		Mode:               enforce.ModeEnforce,
		Capabilities:       Capabilities("random"),
		Postures:           enforce.Postures{File: g.posture(), Network: g.posture(), Capabilities: g.posture()},
		AllowHostAllowlist: g.r.IntN(2) == 0,
	}
	if g.r.IntN(2) == 0 {
		in.Subject = "0123abcd"
	}
	if g.r.IntN(6) == 0 {
		in.Mode = enforce.ModeAudit
	}
	for n := range 1 + g.r.IntN(3) {
		p := &policies.Policy{ID: policies.ID{Kind: policies.KindHost, Name: fmt.Sprintf("policy-%d", n)}}
		if g.r.IntN(3) == 0 {
			p.Labels = map[string]string{enforce.ModeLabel: string(enforce.ModeAudit)}
		}
		in.Policies = append(in.Policies, p)
	}
	for range rules {
		p := in.Policies[g.r.IntN(len(in.Policies))]
		rule := g.rule()
		rule.Index = len(p.Rules)
		p.Rules = append(p.Rules, rule)
	}
	in.Aliases = map[string]string{}
	for _, path := range enforce.LiteralPaths(in.Policies) {
		if g.r.IntN(4) == 0 {
			in.Aliases[path] = g.alias(path)
		}
	}
	return in
}

func (g *Generator) rule() policies.Rule {
	r := policies.Rule{
		Class:      g.class(),
		Action:     pick(g.r, policies.ActionAllow, policies.ActionBlock, policies.ActionBlock, policies.ActionAudit),
		OwnerOnly:  g.r.IntN(4) == 0,
		NoTerminal: g.r.IntN(6) == 0,
	}
	switch g.r.IntN(4) {
	case 0:
		r.Object = policies.Object{Kind: policies.ObjectPath, Value: g.Path()}
	case 1:
		r.Object = policies.Object{Kind: policies.ObjectDirectory, Value: directory(g.Path()), Recursive: g.r.IntN(2) == 0}
	case 2:
		r.Object = policies.Object{Kind: policies.ObjectPattern, Value: g.pattern()}
	default:
		r.Object = policies.Object{Kind: policies.ObjectExecName, Value: g.name()}
	}
	if r.Class == policies.ClassFile {
		r.ReadOnly = g.r.IntN(4) == 0
		if r.Object.Kind == policies.ObjectExecName {
			r.Object = policies.Object{Kind: policies.ObjectPath, Value: g.Path()}
		}
	}
	if r.Class == policies.ClassProcess && g.r.IntN(4) == 0 {
		r.HasArgs, r.AllowedArgs = true, g.args()
	}
	if objects := named[r.Class]; objects != nil {
		r.Object, r.OwnerOnly = pick(g.r, objects...), false
	}
	if r.Class == policies.ClassSyscalls {
		r.Object, r.OwnerOnly, r.NoTerminal = g.syscalls(), false, false
	}
	if isFlow(r.Class) {
		r.Object, r.OwnerOnly, r.NoTerminal = g.flowRule(r.Class), false, false
		return r
	}
	for range max(0, g.r.IntN(5)-2) {
		source := policies.Source{Path: g.program()}
		if r.Class == policies.ClassSyscalls && g.r.IntN(2) == 0 {
			source = policies.Source{Dir: pick(g.r, "/bin/", "/", "/bin/a/"), Recursive: g.r.IntN(2) == 0}
		}
		r.Sources = append(r.Sources, source)
	}
	return r
}

// Operation is a random operation on a subject that obeys the ruleset. About half of them touch a path of
// one of its rules.
func (g *Generator) Operation(rs *enforce.Ruleset) enforce.Operation {
	op := enforce.Operation{
		Class: g.class(),
		Path:  g.path(rs),
		Owner: g.r.IntN(2) == 0, Read: g.r.IntN(2) == 0, Terminal: g.r.IntN(2) == 0,
	}
	if op.Class == policies.ClassProcess {
		op.Read, op.Mapped, op.Args = false, g.r.IntN(4) == 0, g.args()
	}
	if objects := named[op.Class]; objects != nil {
		op.Path, op.Owner, op.Read, op.Names = "", false, false, g.names(op.Class)
	}
	if isFlow(op.Class) {
		return enforce.Operation{Class: op.Class, Flow: g.Flow()}
	}
	switch op.Class {
	case policies.ClassSyscalls:
		op.Names = []string{pick(g.r, "unlinkat", "mkdirat", "getpid", "rmdir")}
		if g.r.IntN(4) == 0 {
			op.Path = ""
		}
	case policies.ClassProcess, policies.ClassFile:
		switch g.r.IntN(24) {
		case 0:
			op.Path, op.NoPath = "", true
		case 1:
			op.Path = "" // as a memfd has none
		}
	}
	op.Marks = some(g.r, rs.Marks(op.Class))
	op.Source.Executable, op.Source.ExecutableMarks = g.source(rs)
	if g.r.IntN(4) == 0 {
		op.Source.Script, op.Source.ScriptMarks = g.source(rs)
	}
	for op.Source.Script != "" && len(op.Source.Chain) < 4 && g.r.IntN(3) == 0 {
		name, marks := g.source(rs)
		op.Source.Chain, op.Source.ChainMarks = append(op.Source.Chain, name), append(op.Source.ChainMarks, marks...)
	}
	return op
}

// syscalls is the object of a rule on system calls: on any path, on one, or on those of a directory.
func (g *Generator) syscalls() policies.Object {
	o := policies.Object{Kind: policies.ObjectSyscall, Recursive: g.r.IntN(2) == 0}
	for _, name := range []string{"unlinkat", "mkdirat", "getpid"} {
		if g.r.IntN(2) == 0 {
			o.Syscalls = append(o.Syscalls, name)
		}
	}
	if len(o.Syscalls) == 0 {
		o.Syscalls = []string{"rmdir"}
	}
	switch g.r.IntN(4) {
	case 0:
		o.Value = g.Path()
	case 1:
		o.Value = directory(g.Path())
	case 2:
		o.Value = "/"
	}
	return o
}

func (g *Generator) posture() enforce.Posture {
	return pick(g.r, enforce.PostureBlock, enforce.PostureAudit)
}

// class is process or file half of the time and more.
func (g *Generator) class() policies.Class {
	return pick(g.r, append([]policies.Class{policies.ClassProcess, policies.ClassFile}, classes...)...)
}

// names are what an operation without a path is known by.
func (g *Generator) names(class policies.Class) []string {
	switch class {
	case policies.ClassNetwork:
		return pick(g.r, []string{"tcp", "stream", "all"}, []string{"udp", "dgram", "all"}, []string{"packet", "raw", "dgram", "all"},
			[]string{"stream"}, nil)
	case policies.ClassPreset:
		return pick(g.r, []string{"filelessExec"}, []string{"protectProc"}, []string{"protectProc", "protectEnv"}, []string{"anonymousMapExec"})
	case policies.ClassDNS:
		return []string{pick(g.r, "", "a.", "B.", "b.a.", "notb.") + pick(g.r, "example", "EXAMPLE", "example.org", "a.example", "b.a.example.")}
	default:
		return []string{pick(g.r, "chown", "net_raw", "bpf", "sys_admin")}
	}
}

// source is the executable or script of a process, sometimes known by marks, too.
func (g *Generator) source(rs *enforce.Ruleset) (name string, marks []string) {
	sources := rs.Sources()
	name = g.program() + pick(g.r, "", "", "/x")
	if len(sources) > 0 && g.r.IntN(2) == 0 {
		name = sources[g.r.IntN(len(sources))]
	}
	return name, some(g.r, sources)
}

// path is an object's path, near one of the ruleset's half of the time.
func (g *Generator) path(rs *enforce.Ruleset) string {
	path := g.Path()
	if len(rs.Rules) > 0 && g.r.IntN(2) == 0 {
		near := pick(g.r, rs.Rules[g.r.IntN(len(rs.Rules))].Objects...)
		if strings.HasPrefix(near, "/") {
			path = near + pick(g.r, "", "a", "/a", "/a/b")
		}
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// Path is a clean absolute path of up to three components.
func (g *Generator) Path() string {
	var b strings.Builder
	for range 1 + g.r.IntN(3) {
		b.WriteString("/" + g.name())
	}
	return b.String()
}

// args are up to three arguments.
func (g *Generator) args() []string {
	var list []string
	for range g.r.IntN(4) {
		list = append(list, pick(g.r, "-a", "-b", "", "x y"))
	}
	return list
}

func (g *Generator) program() string { return "/bin/" + pick(g.r, "a", "b", "c") }

func (g *Generator) name() string {
	return pick(g.r, "a", "b", "ab", "bin", "etc", "a.log")
}

func (g *Generator) pattern() string {
	var b strings.Builder
	for range 1 + g.r.IntN(3) {
		b.WriteString("/" + pick(g.r, g.name(), "*", "**", "a*", "?", "[ab]", "{a,b}", "*.log", "{a,b*}", "[^a]b"))
	}
	return b.String()
}

// alias is another path in place of the given one, with its trailing slash.
func (g *Generator) alias(path string) string {
	alias := g.Path()
	if strings.HasSuffix(path, "/") {
		return directory(alias)
	}
	return alias
}

func directory(path string) string { return strings.TrimSuffix(path, "/") + "/" }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// some is nearly always nothing, else one or two of the list.
func some(r *rand.Rand, from []string) []string {
	if len(from) == 0 || r.IntN(4) != 0 {
		return nil
	}
	list := []string{pick(r, from...)}
	if r.IntN(3) == 0 {
		list = append(list, pick(r, from...))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
