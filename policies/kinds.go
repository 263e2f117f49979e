// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import "slices"

// kinds are the shapes of the four kinds: the one place that says which fields exist.
var kinds = map[Kind]*shape{
	KindHost:      policyShape(KindHost, hostSpec()),
	KindContainer: policyShape(KindContainer, containerSpec()),
	KindCluster:   policyShape(KindCluster, clusterSpec()),
	KindNetwork:   policyShape(KindNetwork, networkSpec()),
}

// Kinds are the kinds of policy, in the order of their names.
func Kinds() []Kind { return []Kind{KindCluster, KindHost, KindNetwork, KindContainer} }

func policyShape(kind Kind, spec *shape) *shape {
	s := object(
		kindDocs[kind],
		required("apiVersion", textual("Always "+APIVersion+".", &format{
			check: func(text string) *flaw {
				if text == APIVersion {
					return nil
				}
				return &flaw{quoted(text) + " is not an accepted apiVersion", "write " + APIVersion}
			},
			enum: []string{APIVersion}, closed: true,
		})),
		required("kind", textual("The kind of policy.", &format{
			check: func(string) *flaw { return nil }, enum: []string{string(kind)}, closed: true,
		})),
		required("metadata", metadataShape()),
		required("spec", spec),
		optional("status", &shape{kind: anyShape, doc: "Written by a cluster; ignored."}),
	)
	s.verify = verifyPolicy(kind)
	return s
}

var kindDocs = map[Kind]string{
	KindHost:      "Rules for hosts, selected by nodeSelector.",
	KindContainer: "Rules for the containers of one namespace, selected by labels.",
	KindCluster:   "Rules for containers in every selected namespace.",
	KindNetwork:   "L3/L4 ingress and egress rules for hosts or pods.",
}

func metadataShape() *shape {
	s := object(
		"Name and labels of the policy.",
		required("name", textual("The policy's name: RFC 1123, unique for its kind and namespace.", nameFormat)),
		optional("namespace", textual("The namespace of the containers. Left out, it is default, and "+UnorchestratedNamespace+". Host and cluster policies ignore it.", namespaceFormat)),
		optional("labels", labels("Labels of the policy itself.")),
		optional("annotations", labels("Notes for tools; ignored.")),
	)
	for _, name := range []string{
		"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
		"deletionGracePeriodSeconds", "managedFields", "ownerReferences", "finalizers", "selfLink", "generateName",
	} {
		s.fields = append(s.fields, optional(name, &shape{kind: anyShape, doc: "Written by a cluster; ignored."}))
	}
	return s
}

// annotated adds the four fields that inherit from rule to section to spec.
func annotated(action *format, fields ...field) []field {
	return annotatedBy(integer("1 (lowest) to 10.", 1, 10), action, fields...)
}

func annotatedBy(severity *shape, action *format, fields ...field) []field {
	return append(
		fields,
		optional("severity", severity),
		optional("tags", listOf("Free words carried in events.", textual("", nil))),
		optional("message", textual("Text carried in events.", nil)),
		optional("action", textual("Allow, Audit or Block; Block when nothing above says otherwise.", action)),
	)
}

func sectionShape(doc string, fields ...field) *shape {
	return object(doc, annotated(actionFormat, fields...)...)
}

// ruleShape is one rule; exactly one of the objects must be present.
func ruleShape(doc string, objects []string, fields ...field) *shape {
	s := object(doc, annotated(actionFormat, fields...)...)
	s.exactlyOne = objects
	return s
}

func fromSource() field {
	source := object("One source.", optional("path", textual("The executable (or script) that acts.", pathFormat)))
	source.exactlyOne = []string{"path"}
	return optional("fromSource", listOf("The rule holds for these executables only; an empty list equals none given.", source))
}

func syscallSource() field {
	source := object(
		"One source.",
		optional("path", textual("The executable that acts.", pathFormat)),
		optional("dir", textual("The directory of the executables that act.", anyDirFormat)),
		optional("recursive", boolean("Also everything below dir.")),
	)
	source.exactlyOne = []string{"path", "dir"}
	return optional("fromSource", listOf("The rule holds for these executables only.", source))
}

func ownerOnly() field {
	return optional("ownerOnly", boolean("Allow: the owner only. Block and Audit: everybody but the owner."))
}

func readOnly() field {
	return optional("readOnly", boolean("Allow: reading only. Block and Audit: everything but reading."))
}

func pts() field {
	return optional("pts", boolean("false names processes without a controlling terminal; true equals absent."))
}

func recursive() field {
	return optional("recursive", boolean("Every descendant, not only the direct children."))
}

func processSection() *shape {
	args := listOf("Arguments after argv[0]; order and repetition do not count.", textual("", nil))
	args.maxItems = 20
	return sectionShape(
		"Running programs.",
		optional("matchPaths", listOf("By path or by file name.", ruleShape(
			"One program.", []string{"path", "execname"},
			optional("path", textual("The program's absolute path.", pathFormat)),
			optional("execname", textual("The last component of the program's path.", execNameFormat)),
			optional("allowedArgs", args), ownerOnly(), pts(), fromSource(),
		))),
		optional("matchDirectories", listOf("By directory.", ruleShape(
			"The programs of one directory.", []string{"dir"},
			optional("dir", textual("The directory, with its closing slash.", dirFormat)),
			recursive(), ownerOnly(), pts(), fromSource(),
		))),
		optional("matchPatterns", listOf("By pattern.", ruleShape(
			"The programs that a pattern matches.", []string{"pattern"},
			optional("pattern", textual("*, ?, **, [a-z], [^a], {a,b}; anchored at both ends.", patternFormat)),
			ownerOnly(), fromSource(),
		))),
	)
}

func fileSection() *shape {
	return sectionShape(
		"Access to files and directories.",
		optional("matchPaths", listOf("By path.", ruleShape(
			"One file.", []string{"path"},
			optional("path", textual("The file's absolute path.", pathFormat)),
			readOnly(), ownerOnly(), pts(), fromSource(),
		))),
		optional("matchDirectories", listOf("By directory.", ruleShape(
			"The files of one directory.", []string{"dir"},
			optional("dir", textual("The directory, with its closing slash.", dirFormat)),
			recursive(), readOnly(), ownerOnly(), pts(), fromSource(),
		))),
		optional("matchPatterns", listOf("By pattern.", ruleShape(
			"The files that a pattern matches.", []string{"pattern"},
			optional("pattern", textual("*, ?, **, [a-z], [^a], {a,b}; anchored at both ends.", patternFormat)),
			readOnly(), ownerOnly(), fromSource(),
		))),
	)
}

func socketSection() *shape {
	return sectionShape(
		"Sockets and names.",
		optional("matchProtocols", listOf("By protocol or socket type.", ruleShape(
			"One protocol, or several separated by commas.", []string{"protocol"},
			optional("protocol", textual("A protocol or socket type, lower or upper case.", protocolFormat)),
			pts(), fromSource(),
		))),
		optional("matchDNSQueries", listOf("By the name that is asked for.", ruleShape(
			"One domain with its subdomains.", []string{"domain"},
			optional("domain", textual("A domain name; its subdomains are covered.", domainFormat)),
			fromSource(),
		))),
	)
}

func capabilitySection() *shape {
	return sectionShape(
		"Linux capabilities.",
		optional("matchCapabilities", listOf("By name.", ruleShape(
			"One capability, or several separated by commas.", []string{"capability"},
			optional("capability", textual("A capability, any case, with or without cap_.", capabilityFormat)),
			fromSource(),
		))),
	)
}

func syscallSection() *shape {
	calls := listOf("Names of system calls.", textual("", syscallFormat))
	calls.minItems = 1
	return sectionShape(
		"System calls; they are audited whatever the action says.",
		optional("matchSyscalls", listOf("By name.", ruleShape(
			"System calls on anything.", []string{"syscall"},
			optional("syscall", calls), syscallSource(),
		))),
		optional("matchPaths", listOf("By path.", object(
			"System calls on one path.",
			annotated(
				actionFormat,
				required("path", textual("The path, or a directory with its closing slash.", pathOrDirFormat)),
				required("syscall", calls), recursive(), syscallSource(),
			)...,
		))),
	)
}

func presets() field {
	return optional("presets", listOf("Ready-made protections; they inherit nothing.", object(
		"One preset.",
		required("name", textual("The preset.", presetFormat)),
		optional("action", textual("Block when left out.", actionFormat)),
	)))
}

func nodeSelector() *shape {
	s := object(
		"The hosts that the policy is for.",
		optional("matchLabels", labels("kubernetes.io/hostname takes a name, a comma list or *; kubernetes.io/hostnamereg a pattern; every other label must be equal.")),
	)
	s.verify = verifyNodeSelector
	return s
}

func expressions(keys ...string) field {
	values := listOf("label=value words, or namespaces.", textual("", nil))
	values.minItems = 1
	keyFormat := &format{enum: keys, closed: true, check: func(text string) *flaw { return oneOf("key of an expression", text, keys) }}
	operators := []string{"In", "NotIn"}
	operatorFormat := &format{enum: operators, closed: true, check: func(text string) *flaw { return oneOf("operator", text, operators) }}
	expression := object(
		"One condition.",
		required("key", textual("What is compared.", keyFormat)),
		required("operator", textual("In or NotIn.", operatorFormat)),
		required("values", values),
	)
	expression.verify = verifyExpression
	list := listOf("Conditions that must all hold.", expression)
	list.nullable = true // as KubeArmor's own operator writes it
	return optional("matchExpressions", list)
}

func containerSelector(doc string) *shape {
	equal := labels("Labels that must all be equal.")
	equal.nullable = true
	return object(doc, optional("matchLabels", equal), expressions("label"))
}

func containerSpec() *shape {
	return object("What the policy is for and what it says.", annotated(
		specActionFormat,
		optional("selector", containerSelector("The containers of the namespace; all when empty.")),
		optional("process", processSection()), optional("file", fileSection()),
		optional("network", socketSection()), optional("capabilities", capabilitySection()),
		optional("syscalls", syscallSection()), presets(), optional("apparmor", appArmorText()),
	)...)
}

func clusterSpec() *shape {
	selector := object("The containers; all when empty.", expressions("namespace", "label"))
	s := containerSpec()
	s.fields = slices.Clone(s.fields)
	s.fields[0] = optional("selector", selector)
	return s
}

func hostSpec() *shape {
	s := object("What the policy is for and what it says.", annotated(
		specActionFormat,
		required("nodeSelector", nodeSelector()),
		optional("process", processSection()), optional("file", fileSection()),
		optional("network", socketSection()), optional("capabilities", capabilitySection()),
		optional("syscalls", syscallSection()), optional("device", deviceSection()), optional("apparmor", appArmorText()),
	)...)
	return s
}

func appArmorText() *shape {
	return textual("Raw AppArmor rules; only the AppArmor backend knows them.", nil)
}
