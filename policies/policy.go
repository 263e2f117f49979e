// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies is what people write: the KubeArmor policy kinds, parsed strictly into one rule model.
//
// The package is pure. It reads bytes (an fs.FS or one document) and answers a Set or the list of every
// Problem found, each with its file, line and column. Nothing outside this package knows YAML policy
// syntax; everything after it works on Policy and Rule.
//
// The tables of kinds.go say which fields exist and what they hold; the reader follows them and Schema prints
// them. What they say goes beyond KubeArmor's CRDs in a few places: fromSource may stand on every rule, a
// capability may be written in any case and with cap_, comma lists of protocols and capabilities are several
// rules, a port may be a bare number, YAML 1.1's yes and no are booleans, an exported List is its items.
// They say less in a few others, each time because the rule would silently do nothing: paths with //, /./ or
// /../, components longer than NAME_MAX, patterns that no path matches, domains that no query names, label
// expressions without =, a nodeSelector without a label, unknown presets, flows without any condition.
//
// Limits: a document has at most MaxDocument bytes and 64 levels and no aliases, anchors, merge keys or tags;
// lines end in \n or \r\n; a file reports at most 1,000 problems; a release holds at most MaxRules rules; names in selectors are at most 1,024 bytes
// of regular expression. Syntax errors are told by line and the line's first column: YAML libraries know no
// better. What a kernel or backend lacks is not this package's business.
package policies

// Kind is the kind of a policy document, spelled as in its YAML.
type Kind string

// The kinds of apiVersion security.kubearmor.com/v1 that Muster accepts.
const (
	KindHost      Kind = "KubeArmorHostPolicy"
	KindContainer Kind = "KubeArmorPolicy"
	KindCluster   Kind = "KubeArmorClusterPolicy"
	KindNetwork   Kind = "KubeArmorNetworkPolicy"
)

// APIVersion is the only apiVersion accepted.
const APIVersion = "security.kubearmor.com/v1"

// ID names a policy uniquely within one release.
type ID struct {
	Kind      Kind   `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Position is a place in a policy file; Line and Column start at 1.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// Action is what a rule asks for.
type Action string

// The actions. A missing action means ActionBlock.
const (
	ActionAllow Action = "Allow"
	ActionAudit Action = "Audit"
	ActionBlock Action = "Block"
)

// Class is a kind of operation; rules of different classes never meet in one decision.
type Class string

// The classes. ClassNetwork (sockets) and ClassDNS (names) are two objects of the section "network". ClassIngress
// and ClassEgress are the flows of a KubeArmorNetworkPolicy: those that others begin, and those that the subject does.
const (
	ClassProcess      Class = "process"
	ClassFile         Class = "file"
	ClassNetwork      Class = "network"
	ClassDNS          Class = "dns"
	ClassCapabilities Class = "capabilities"
	ClassSyscalls     Class = "syscalls"
	ClassIngress      Class = "ingress"
	ClassEgress       Class = "egress"
	ClassPreset       Class = "preset"
	ClassDevice       Class = "device"
	ClassAppArmor     Class = "apparmor"
)

// ObjectKind says how Object.Value is to be matched.
type ObjectKind string

// The object kinds.
const (
	ObjectPath       ObjectKind = "path"
	ObjectExecName   ObjectKind = "execname"
	ObjectPattern    ObjectKind = "pattern"
	ObjectDirectory  ObjectKind = "directory"
	ObjectProtocol   ObjectKind = "protocol"
	ObjectDomain     ObjectKind = "domain"
	ObjectCapability ObjectKind = "capability"
	ObjectSyscall    ObjectKind = "syscall"
	ObjectFlow       ObjectKind = "flow"
	ObjectPreset     ObjectKind = "preset"
	ObjectDevice     ObjectKind = "device"
	ObjectAppArmor   ObjectKind = "apparmor"
)

// Object is what a rule speaks about.
type Object struct {
	Kind ObjectKind `json:"kind"`
	// Value is the path, execname, pattern, directory (with its trailing slash), protocol (lower case),
	// domain, capability (lower case, without "cap_"), or preset name, as written otherwise.
	Value string `json:"value"`
	// Recursive extends an ObjectDirectory to every descendant.
	Recursive bool `json:"recursive,omitempty"`
	// Syscalls are the names of an ObjectSyscall; Value is then its path or empty.
	Syscalls []string `json:"syscalls,omitempty"`
	// Detail holds what only a later stage reads (a flow's peers, a device's class), as canonical JSON.
	Detail string `json:"detail,omitempty"`
}

// Source is one fromSource entry. Dir and Recursive occur on syscall rules only.
type Source struct {
	Path      string `json:"path,omitempty"`
	Dir       string `json:"dir,omitempty"`
	Recursive bool   `json:"recursive,omitempty"`
}

// Rule is one rule with everything inherited already filled in.
type Rule struct {
	// Index is the rule's position in its policy, from 0, in document order.
	Index    int      `json:"index"`
	Position Position `json:"position"`
	Class    Class    `json:"class"`
	Action   Action   `json:"action"`
	Object   Object   `json:"object"`
	// Sources is empty when the rule holds for every source.
	Sources   []Source `json:"sources,omitempty"`
	OwnerOnly bool     `json:"ownerOnly,omitempty"`
	ReadOnly  bool     `json:"readOnly,omitempty"`
	// NoTerminal is "pts: false"; "pts: true" equals absent.
	NoTerminal  bool     `json:"noTerminal,omitempty"`
	AllowedArgs []string `json:"allowedArgs,omitempty"`
	// HasArgs tells an empty allowedArgs list from an absent one.
	HasArgs bool `json:"hasArgs,omitempty"`
	// Severity is 1 to 10, or 0 when unset.
	Severity int      `json:"severity,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Message  string   `json:"message,omitempty"`
}

// Policy is one parsed document.
type Policy struct {
	ID
	Labels   map[string]string `json:"labels,omitempty"`
	Selector Selector          `json:"selector"`
	Rules    []Rule            `json:"rules"`
	Position Position          `json:"position"`
}

// Selector says which subjects a policy is for. A KindHost or node-level KindNetwork policy fills Node;
// the others fill Labels and Expressions.
type Selector struct {
	Node        map[string]string `json:"node,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Expressions []Expression      `json:"expressions,omitempty"`
}

// Expression is one matchExpressions entry; Key is "label" or "namespace", Operator "In" or "NotIn".
type Expression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values"`
}

// Subject is what a policy is matched against: the host, or one container.
type Subject struct {
	// Host is true for the host itself; Labels are then the node's labels, its hostname among them
	// as kubernetes.io/hostname.
	Host          bool
	Namespace     string
	ContainerName string
	Labels        map[string]string
}
