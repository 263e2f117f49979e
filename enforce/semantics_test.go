// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"reflect"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// These tables quote SEMANTICS sentence by sentence: "Decision", "Objects", "Modifiers".

func TestDecisionMatch(t *testing.T) {
	t.Parallel()
	blockTool := rules(nil, block(process, "/bin/tool", from("/bin/a", "/bin/b")))
	run(t, []sentence{
		{"Match. Every Allow and Block rule of the class […] whose object and source match", []decideCase{
			{blockTool, op(process, "/bin/tool", "/bin/a"), denied(0)},
			{blockTool, op(process, "/bin/tool", "/bin/b"), denied(0)},
			{blockTool, op(process, "/bin/tool", "/bin/c"), unmatched},
			{blockTool, op(process, "/bin/tool2", "/bin/a"), unmatched},
			{blockTool, op(file, "/bin/tool", "/bin/a"), unmatched},
		}},
		{"and whose modifiers let it fire", []decideCase{
			{rules(nil, block(file, "/f", ownerOnly)), op(file, "/f", "/bin/a", owner), unmatched},
			{rules(nil, block(file, "/f", ownerOnly)), op(file, "/f", "/bin/a"), denied(0)},
			{ // A rule that does not fire does not outrank one that does.
				rules(nil, allow(file, "/f", ownerOnly, from("/bin/a")), block(file, "/f")),
				op(file, "/f", "/bin/a"), denied(1),
			},
		}},
	})
}

func TestDecisionRank(t *testing.T) {
	t.Parallel()
	c := with(container1, posture(enforce.PostureBlock))
	directory := policies.ObjectDirectory
	pattern := policies.ObjectPattern
	execname := policies.ObjectExecName
	run(t, []sentence{
		{"Rank by the most specific: a rule with fromSource before one without", []decideCase{
			{rules(c, block(file, "/d/f"), allow(file, "/d/", as(directory), from("/bin/a"))), op(file, "/d/f", "/bin/a"), permitted(1)},
			{rules(c, block(file, "/d/f"), allow(file, "/d/", as(directory), from("/bin/a"))), op(file, "/d/f", "/bin/b"), denied(0)},
			{rules(c, allow(file, "/d/f"), block(file, "/", as(directory), recursive, from("/bin/a"))), op(file, "/d/f", "/bin/a"), denied(1)},
		}},
		{"then exact path, execname, pattern, directory", []decideCase{
			{rules(c, allow(process, "/d/t"), block(process, "t", as(execname))), op(process, "/d/t", ""), permitted(0)},
			{rules(c, block(process, "t", as(execname)), allow(process, "/d/{t,u}", as(pattern))), op(process, "/d/t", ""), denied(0)},
			{rules(c, block(process, "/long/directory/", as(directory), recursive), allow(process, "/**", as(pattern))), op(process, "/long/directory/t", ""), permitted(1)},
			{rules(c, allow(process, "/d/{t,u}", as(pattern)), block(process, "/d/", as(directory))), op(process, "/d/t", ""), permitted(0)},
		}},
		{"pattern (longer literal prefix, as written, first)", []decideCase{
			{rules(c, allow(file, "/d/s*", as(pattern)), block(file, "/d/*", as(pattern))), op(file, "/d/sx", ""), permitted(0)},
			{rules(c, block(file, "/d/s*", as(pattern)), allow(file, "/d/*x", as(pattern))), op(file, "/d/sx", ""), denied(0)},
			{rules(c, allow(file, `/d/\**`, as(pattern)), block(file, "/d/*x", as(pattern))), op(file, "/d/*x", ""), permitted(0)},
			{ // As written: that /l leads to a long path does not count.
				rules(c, allow(file, "/l/*", as(pattern), also("/a/very/long/path/*")), block(file, "/a/v*/**", as(pattern))),
				op(file, "/a/very/long/path/x", ""), denied(1),
			},
		}},
		{"directory (longer path first; at equal path non-recursive before recursive)", []decideCase{
			{rules(c, block(file, "/d/", as(directory), recursive), allow(file, "/d/e/", as(directory), recursive)), op(file, "/d/e/f", ""), permitted(1)},
			{rules(c, allow(file, "/d/", as(directory)), block(file, "/d/e/", as(directory), recursive)), op(file, "/d/e", ""), denied(1)},
			{rules(c, block(file, "/d/", as(directory), recursive), allow(file, "/d/", as(directory))), op(file, "/d/f", ""), permitted(1)},
			{rules(c, block(file, "/d/", as(directory), recursive), allow(file, "/d/", as(directory))), op(file, "/d/e/f", ""), denied(0)},
		}},
		{"Protocols, domains and capabilities have no rank of their own: only the source counts", []decideCase{
			{
				rules(c, allow(network, "tcp", as(policies.ObjectProtocol)), block(network, "all", as(policies.ObjectProtocol))),
				op(network, "", "", named("tcp", "stream", "all")), denied(1),
			},
			{
				rules(c, allow(dns, "a.example.org", as(policies.ObjectDomain)), block(dns, "example.org", as(policies.ObjectDomain))),
				op(dns, "", "", named("a.example.org")), denied(1),
			},
			{
				rules(c, block(capabilities, "chown", as(policies.ObjectCapability)), allow(capabilities, "chown", as(policies.ObjectCapability), from("/bin/a"))),
				op(capabilities, "", "/bin/a", named("chown")), permitted(1),
			},
		}},
	})
}

func TestDecisionDecide(t *testing.T) {
	t.Parallel()
	c := with(container1)
	run(t, []sentence{
		{"Decide by the highest rank; at equal rank Block beats Allow", []decideCase{
			{rules(c, allow(file, "/f"), block(file, "/f")), op(file, "/f", ""), denied(1)},
			{rules(c, allow(file, "/f", from("/bin/a")), block(file, "/f", from("/bin/a", "/bin/b"))), op(file, "/f", "/bin/a"), denied(1)},
		}},
		{"File order, policy order and apply order never matter", []decideCase{
			{rules(c, block(file, "/f"), allow(file, "/f")), op(file, "/f", ""), denied(0)},
			{rules(c, allow(file, "/f", of("a")), block(file, "/f", of("b"))), op(file, "/f", ""), denied(1)},
			{rules(c, block(file, "/f", of("a")), allow(file, "/f", of("b"))), op(file, "/f", ""), denied(0)},
		}},
		{"When several rules of equal rank decide alike, the event names the smallest (kind, namespace, policy, rule position)", []decideCase{
			{rules(c, block(file, "/f", of("a")), block(file, "/f", of("b"))), op(file, "/f", ""), denied(0)},
			{rules(c, allow(file, "/f"), allow(file, "/f")), op(file, "/f", ""), permitted(0)},
		}},
	})
}

func TestDecisionPosture(t *testing.T) {
	t.Parallel()
	blocking, auditPosture := with(container1, posture(enforce.PostureBlock)), with(container1, posture(enforce.PostureAudit))
	hostBlocking := with(posture(enforce.PostureBlock))
	run(t, []sentence{
		{"if the subject has at least one Allow rule of that class, the class's default posture decides (block denies, audit permits and emits an event)", []decideCase{
			{rules(blocking, allow(file, "/f")), op(file, "/g", ""), deniedByPosture},
			{rules(auditPosture, allow(file, "/f")), op(file, "/g", ""), auditedPosture},
			{rules(with(container1), allow(file, "/f")), op(file, "/g", ""), auditedPosture},
			{rules(blocking, allow(file, "/f", from("/bin/a"))), op(file, "/f", "/bin/b"), deniedByPosture},
		}},
		{"otherwise the operation is permitted", []decideCase{
			{rules(blocking), op(file, "/g", ""), unmatched},
			{rules(blocking, block(file, "/f"), audit("/h")), op(file, "/g", ""), unmatched},
		}},
		{"On the host an Allow with fromSource makes an allow-list for those sources only", []decideCase{
			{rules(hostBlocking, allow(file, "/f", from("/bin/a"))), op(file, "/g", "/bin/a"), deniedByPosture},
			{rules(hostBlocking, allow(file, "/f", from("/bin/a"))), op(file, "/f", "/bin/a"), permitted(0)},
			{rules(hostBlocking, allow(file, "/f", from("/bin/a"))), op(file, "/f", "/bin/b"), unmatched},
			{rules(hostBlocking, allow(file, "/f", from("/bin/s.sh"))), op(file, "/g", "/bin/bash", script("/bin/s.sh")), deniedByPosture},
			{rules(hostBlocking, allow(file, "/f")), op(file, "/g", "/bin/b"), deniedByPosture}, // allowHostAllowlist
		}},
		{"Process and file are separate classes for step 4; both use the file posture", []decideCase{
			{rules(blocking, allow(process, "/bin/a")), op(file, "/f", ""), unmatched},
			{rules(blocking, allow(process, "/bin/a")), op(process, "/bin/b", ""), deniedByPosture},
			{
				&enforce.Ruleset{Subject: container, Mode: enforce.ModeEnforce, Postures: enforce.Postures{File: enforce.PostureBlock}, Rules: []enforce.Rule{
					allow(process, "/bin/a"), allow(network, "tcp", as(policies.ObjectProtocol)),
				}},
				op(network, "", "", named("udp", "dgram", "all")), auditedPosture,
			},
		}},
		{"Sockets and names are two objects with two decisions and two allow-lists", []decideCase{
			{rules(blocking, allow(network, "tcp", as(policies.ObjectProtocol))), op(dns, "", "", named("example.org")), unmatched},
			{rules(blocking, allow(dns, "example.org", as(policies.ObjectDomain))), op(dns, "", "", named("example.com")), deniedByPosture},
		}},
	})
}

func TestDecisionAudit(t *testing.T) {
	t.Parallel()
	c := with(container1, posture(enforce.PostureBlock))
	run(t, []sentence{
		{"Audit rules never change the verdict", []decideCase{
			{rules(c, audit("/f")), op(file, "/f", ""), auditedBy(unmatched, 0)},
			{rules(c, allow(file, "/g"), audit("/f")), op(file, "/f", ""), auditedBy(deniedByPosture, 1)},
			{rules(c, audit("/f"), block(file, "/f")), op(file, "/f", ""), auditedBy(denied(1), 0)},
			{rules(c, audit("/f", from("/bin/a")), block(file, "/", as(policies.ObjectDirectory))), op(file, "/f", "/bin/a"), auditedBy(denied(1), 0)},
		}},
		{"each policy with a matching Audit rule emits one event under its own name", []decideCase{
			{
				rules(c, audit("/f", of("a")), audit("/", as(policies.ObjectDirectory), of("a")), audit("/f", of("b")), audit("/g", of("c"))),
				op(file, "/f", ""), auditedBy(unmatched, 0, 2),
			},
		}},
		{"policies in audit mode never change a verdict, and tell what they would have denied", []decideCase{
			{rules(c, block(file, "/f", dryRun)), op(file, "/f", ""), dryRunBy(unmatched, enforce.DryRun{Rule: 0})},
			{rules(c, block(file, "/f", dryRun, of("a")), block(file, "/f", of("b"))), op(file, "/f", ""), denied(1)},
			{rules(c, block(file, "/f", dryRun)), op(file, "", "", noPath), dryRunBy(unmatched, enforce.DryRun{Rule: 0, Unbuildable: true})},
			// Under ranking: what an Allow that outranks the Block lets through would not be denied.
			{
				rules(c, block(file, "/f", dryRun, of("a")), allow(file, "/f", from("/bin/a"), of("b"))),
				op(file, "/f", "/bin/a"), permitted(1),
			},
			{
				rules(c, block(file, "/f", dryRun, of("a")), allow(file, "/", as(policies.ObjectDirectory), of("b"))),
				op(file, "/f", ""), dryRunBy(permitted(1), enforce.DryRun{Rule: 0}),
			},
			// With its Allows, and the posture.
			{
				rules(c, allow(file, "/f", dryRun, from("/bin/a")), block(file, "/f", dryRun)),
				op(file, "/f", "/bin/a"), unmatched,
			},
			{rules(c, allow(file, "/g", dryRun)), op(file, "/f", ""), dryRunBy(unmatched, enforce.DryRun{Rule: 0, Posture: true})},
			{rules(c, allow(file, "/g", dryRun, of("a")), block(file, "/f", of("b"))), op(file, "/f", ""), denied(1)},
			{rules(with(container1), allow(file, "/g", dryRun)), op(file, "/f", ""), unmatched},
			// Each by itself: what another policy in dry run allows is not allowed yet.
			{
				rules(c, allow(file, "/f", dryRun, of("a")), allow(file, "/g", dryRun, of("b"))),
				op(file, "/f", ""), dryRunBy(unmatched, enforce.DryRun{Rule: 1, Posture: true}),
			},
		}},
	})
}

// TestTwoObjects: "when one operation touches several objects the first denied one decides, old name before new", and
// "audit rules never change the verdict", nor does the verdict change what they report.
func TestTwoObjects(t *testing.T) {
	t.Parallel()
	rs := rules(with(container1), block(file, "/a"), audit("/b", of("q")), audit("/a", of("r")), block(file, "/c", of("s")))
	for names, want := range map[[2]string]enforce.Decision{
		{"/a", "/b"}: auditedBy(denied(0), 1, 2),
		{"/b", "/a"}: auditedBy(denied(0), 1, 2),
		{"/c", "/a"}: auditedBy(denied(3), 2),
		{"/b", "/x"}: auditedBy(unmatched, 1),
	} {
		got := rs.DecideAll(op(file, names[0], ""), op(file, names[1], ""))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", names, got, want)
		}
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()
	directory, pattern := policies.ObjectDirectory, policies.ObjectPattern
	run(t, []sentence{
		{"A rule's path is matched literally and also after resolving symlinks", []decideCase{
			{rules(nil, block(process, "/bin/sleep", also("/usr/bin/sleep"))), op(process, "/usr/bin/sleep", ""), denied(0)},
			{rules(nil, block(process, "/bin/sleep", also("/usr/bin/sleep"))), op(process, "/bin/sleep", ""), denied(0)},
		}},
		{"a path that cannot be built […] is denied when the class has a Block or an Allow rule for the subject", []decideCase{
			{rules(nil, block(file, "/f")), op(file, "", "", noPath), unbuildable},
			{rules(nil, allow(file, "/f", from("/bin/a"))), op(file, "", "/bin/b", noPath), unbuildable},
			{rules(nil, audit("/f")), op(file, "", "", noPath), unmatched},
			{rules(nil, block(process, "/f")), op(file, "", "", noPath), unmatched},
			{rules(with(auditing), block(file, "/f")), op(file, "", "", noPath), wouldDeny(unbuildable)},
		}},
		{"memfd (no path: denied under an allow-list)", []decideCase{
			{rules(with(container1, posture(enforce.PostureBlock)), allow(process, "/", as(directory), recursive)), op(process, "", ""), deniedByPosture},
			{rules(nil, block(process, "/bin/a")), op(process, "", ""), unmatched},
		}},
		{"matchDirectories: it covers the directory itself and its direct children", []decideCase{
			{rules(nil, block(file, "/d/", as(directory))), op(file, "/d", ""), denied(0)},
			{rules(nil, block(file, "/d/", as(directory))), op(file, "/d/f", ""), denied(0)},
			{rules(nil, block(file, "/d/", as(directory))), op(file, "/d/e/f", ""), unmatched},
			{rules(nil, block(file, "/d/", as(directory))), op(file, "/dd", ""), unmatched},
			{rules(nil, block(file, "/", as(directory))), op(file, "/", ""), denied(0)},
			{rules(nil, block(file, "/", as(directory))), op(file, "/f", ""), denied(0)},
			{rules(nil, block(file, "/", as(directory))), op(file, "/d/f", ""), unmatched},
		}},
		{"recursive: true every descendant", []decideCase{
			{rules(nil, block(file, "/d/", as(directory), recursive)), op(file, "/d/e/f", ""), denied(0)},
			{rules(nil, block(file, "/d/", as(directory), recursive)), op(file, "/d", ""), denied(0)},
			{rules(nil, block(file, "/", as(directory), recursive)), op(file, "/d/e/f", ""), denied(0)},
		}},
		{"/a/** matches neither /a nor /a/", []decideCase{
			{rules(nil, block(file, "/a/**", as(pattern))), op(file, "/a", ""), unmatched},
			{rules(nil, block(file, "/a/**", as(pattern))), op(file, "/a/b/c", ""), denied(0)},
		}},
		{"In path and dir these characters are literal", []decideCase{
			{rules(nil, block(file, "/a*")), op(file, "/ab", ""), unmatched},
			{rules(nil, block(file, "/a*")), op(file, "/a*", ""), denied(0)},
			{rules(nil, block(file, "/[d]/", as(directory))), op(file, "/d/f", ""), unmatched},
		}},
		{"execname: the last component of the executed file's path", []decideCase{
			{rules(nil, block(process, "tool", as(policies.ObjectExecName))), op(process, "/any/where/tool", ""), denied(0)},
			{rules(nil, block(process, "tool", as(policies.ObjectExecName))), op(process, "/tool/x", ""), unmatched},
		}},
	})
}

func TestMarks(t *testing.T) {
	t.Parallel()
	c := with(container1, posture(enforce.PostureBlock))
	host := with(posture(enforce.PostureBlock))
	run(t, []sentence{
		{"An exact-path Block protects the file, not one spelling of its name", []decideCase{
			{rules(nil, block(file, "/s")), op(file, "/link", "", marked("/s")), denied(0)},
			{rules(nil, block(file, "/l", also("/s"))), op(file, "/link", "", marked("/s")), denied(0)},
			{rules(c, allow(file, "/link"), block(file, "/s")), op(file, "/link", "", marked("/s")), denied(1)},
			{rules(c, allow(file, "/link", from("/bin/a")), block(file, "/s")), op(file, "/link", "/bin/a", marked("/s")), permitted(0)},
		}},
		{"Directory and pattern rules go by name", []decideCase{
			{rules(nil, block(file, "/s/", as(policies.ObjectDirectory))), op(file, "/link", "", marked("/s/")), unmatched},
			{rules(c, allow(file, "/s")), op(file, "/link", "", marked("/s")), deniedByPosture},
			{rules(nil, audit("/s")), op(file, "/link", "", marked("/s")), unmatched},
		}},
		{"A source that is renamed or linked keeps its class for Block", []decideCase{
			{rules(nil, block(file, "/s", from("/bin/a"))), op(file, "/s", "/tmp/x", sourceMarked("/bin/a")), denied(0)},
			{rules(nil, audit("/s", from("/bin/a"))), op(file, "/s", "/tmp/x", sourceMarked("/bin/a")), auditedBy(unmatched, 0)},
			{rules(host, allow(file, "/f", from("/bin/a"))), op(file, "/s", "/tmp/x", sourceMarked("/bin/a")), deniedByPosture},
		}},
		{"and gains none for Allow", []decideCase{
			{rules(c, allow(file, "/f", from("/bin/a"))), op(file, "/f", "/tmp/x", sourceMarked("/bin/a")), deniedByPosture},
			{rules(c, block(file, "/f"), allow(file, "/f", from("/bin/a"))), op(file, "/f", "/tmp/x", sourceMarked("/bin/a")), denied(0)},
		}},
		{"the source of a process started from a script (#!) is the script as well as the interpreter", []decideCase{
			{rules(nil, block(file, "/f", from("/opt/s.sh"))), op(file, "/f", "/bin/bash", script("/opt/s.sh")), denied(0)},
			{rules(nil, block(file, "/f", from("/bin/bash"))), op(file, "/f", "/bin/bash", script("/opt/s.sh")), denied(0)},
			{rules(c, allow(file, "/f", from("/opt/s.sh")), block(file, "/f", from("/bin/bash"))), op(file, "/f", "/bin/bash", script("/opt/s.sh")), denied(1)},
			{rules(nil, block(file, "/f", from("/opt/s.sh"))), op(file, "/f", "/bin/bash"), unmatched},
		}},
	})
}

func TestModifiers(t *testing.T) {
	t.Parallel()
	c := with(container1, posture(enforce.PostureBlock))
	allows := func(options ...ruleOption) *enforce.Ruleset { return rules(c, allow(file, "/f", options...)) }
	blocks := func(options ...ruleOption) *enforce.Ruleset { return rules(nil, block(file, "/f", options...)) }
	audits := func(options ...ruleOption) *enforce.Ruleset { return rules(nil, audit("/f", options...)) }
	f := func(change ...func(*enforce.Operation)) enforce.Operation { return op(file, "/f", "", change...) }
	run(t, []sentence{
		{"ownerOnly | caller owns the object | caller does not own it", []decideCase{
			{allows(ownerOnly), f(owner), permitted(0)},
			{allows(ownerOnly), f(), deniedByPosture},
			{blocks(ownerOnly), f(owner), unmatched},
			{blocks(ownerOnly), f(), denied(0)},
			{audits(ownerOnly), f(owner), unmatched},
			{audits(ownerOnly), f(), auditedBy(unmatched, 0)},
		}},
		{"readOnly | the operation only reads | it is anything but a read", []decideCase{
			{allows(readOnly), f(read), permitted(0)},
			{allows(readOnly), f(), deniedByPosture},
			{blocks(readOnly), f(read), unmatched},
			{blocks(readOnly), f(), denied(0)},
		}},
		{"both | owner and read | not (owner and read)", []decideCase{
			{allows(ownerOnly, readOnly), f(owner, read), permitted(0)},
			{allows(ownerOnly, readOnly), f(owner), deniedByPosture},
			{allows(ownerOnly, readOnly), f(read), deniedByPosture},
			{blocks(ownerOnly, readOnly), f(owner, read), unmatched},
			{blocks(ownerOnly, readOnly), f(owner), denied(0)},
			{blocks(ownerOnly, readOnly), f(read), denied(0)},
			{blocks(ownerOnly, readOnly), f(), denied(0)},
		}},
		{"pts: false | no controlling terminal | there is a controlling terminal", []decideCase{
			{allows(noTerminal), f(), permitted(0)},
			{allows(noTerminal), f(terminal), deniedByPosture},
			{blocks(noTerminal), f(terminal), denied(0)},
			{blocks(noTerminal), f(), unmatched},
		}},
		{"allowedArgs | every argument after argv[0] is listed | some argument is not listed", []decideCase{
			{allows(args("-a", "x")), f(argv("x", "-a", "x")), permitted(0)},
			{allows(args("-a", "x")), f(argv("-a", "y")), deniedByPosture},
			{allows(args("-a")), f(), permitted(0)},
			{blocks(args("-a", "x")), f(argv("x", "x")), unmatched},
			{blocks(args("-a", "x")), f(argv("-a", "x", "extra")), denied(0)},
			{blocks(args("-a")), f(), unmatched},
		}},
		{"Several modifiers: what an Allow would grant is what a Block leaves alone", []decideCase{
			{blocks(ownerOnly, noTerminal), f(owner), unmatched},
			{blocks(ownerOnly, noTerminal), f(owner, terminal), denied(0)},
			{blocks(ownerOnly, noTerminal), f(), denied(0)},
			{allows(ownerOnly, noTerminal), f(owner), permitted(0)},
			{allows(ownerOnly, noTerminal), f(owner, terminal), deniedByPosture},
		}},
	})
}

func TestAuditMode(t *testing.T) {
	t.Parallel()
	run(t, []sentence{
		{"in audit mode or held: Action Audit (Block), Result Passed", []decideCase{
			{rules(with(auditing), block(file, "/f")), op(file, "/f", ""), wouldDeny(denied(0))},
			{rules(with(auditing, container1, posture(enforce.PostureBlock)), allow(file, "/f")), op(file, "/g", ""), wouldDeny(deniedByPosture)},
			{rules(nil, block(file, "/f")).Hold("why"), op(file, "/f", ""), wouldDeny(denied(0))},
			{rules(with(auditing), allow(file, "/f", from("/bin/a"))), op(file, "/f", "/bin/a"), permitted(0)},
		}},
		{"matchDNSQueries: the queried name and its subdomains, case-insensitively", []decideCase{
			{rules(nil, block(dns, "example.org", as(policies.ObjectDomain))), op(dns, "", "", named("WWW.Example.org")), denied(0)},
			{rules(nil, block(dns, "example.org", as(policies.ObjectDomain))), op(dns, "", "", named("badexample.org")), unmatched},
		}},
	})
}
