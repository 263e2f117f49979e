// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package events turns what a backend reports into KubeArmor's records and carries them to their readers.
//
// Translating is pure. Carrying never makes the kernel's reader wait: a record that finds the queue full is
// counted by its reason and gone; the policy and action counters count it all the same. A reader that
// follows the stream and is too slow is cut off, so that it knows.
package events

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Record is one alert with KubeArmor's field names, and Count; every field is always present.
type Record struct {
	Timestamp         int64     `json:"Timestamp"`
	UpdatedTime       string    `json:"UpdatedTime"`
	ClusterName       string    `json:"ClusterName"`
	HostName          string    `json:"HostName"`
	NamespaceName     string    `json:"NamespaceName"`
	PodName           string    `json:"PodName"`
	Labels            string    `json:"Labels"`
	ContainerID       string    `json:"ContainerID"`
	ContainerName     string    `json:"ContainerName"`
	ContainerImage    string    `json:"ContainerImage"`
	HostPPID          int32     `json:"HostPPID"`
	HostPID           int32     `json:"HostPID"`
	PPID              int32     `json:"PPID"`
	PID               int32     `json:"PID"`
	UID               int32     `json:"UID"`
	ParentProcessName string    `json:"ParentProcessName"`
	ProcessName       string    `json:"ProcessName"`
	PolicyName        string    `json:"PolicyName"`
	Severity          string    `json:"Severity"`
	Tags              string    `json:"Tags"`
	ATags             []string  `json:"ATags"`
	Message           string    `json:"Message"`
	Type              string    `json:"Type"`
	Source            string    `json:"Source"`
	Operation         string    `json:"Operation"`
	Resource          string    `json:"Resource"`
	Data              string    `json:"Data"`
	EventData         EventData `json:"EventData"`
	Enforcer          string    `json:"Enforcer"`
	Action            string    `json:"Action"`
	Result            string    `json:"Result"`
	Cwd               string    `json:"Cwd"`
	TTY               string    `json:"TTY"`
	// Count is ours: how many operations the record tells of. Beyond the first few in a second, those of the
	// same rule, source and object are told together: UpdatedTime is the last of them, EventData.Since the
	// first, and the process is that of the last.
	Count uint64 `json:"Count"`
}

// EventData is what KubeArmor's fields have no place for.
type EventData struct {
	Comm string `json:"Comm"`
	// DryRun are the policies in audit that would have denied it, as DryRunName writes them: kind, name and version. One, but
	// for a default posture on a host in audit: there every policy that makes the allow-list.
	DryRun    []string `json:"DryRun,omitempty"`
	Example   string   `json:"Example,omitempty"` // of the objects that Count tells of, when they differed
	Lsm       string   `json:"Lsm"`
	Mode      string   `json:"Mode,omitempty"` // audit: nothing is enforced on the whole host
	Operation string   `json:"Operation"`
	Rule      string   `json:"Rule,omitempty"` // where the rule stands in the release: FILE:LINE:COLUMN
	Script    string   `json:"Script,omitempty"`
	Since     string   `json:"Since,omitempty"`
	To        string   `json:"To,omitempty"`
}

// DefaultPosture is the PolicyName of an event that no rule decided.
const DefaultPosture = "DefaultPosture"

// The results.
const (
	resultPassed    = "Passed"
	resultDenied    = "Permission denied"
	resultForbidden = "Operation not permitted" // capabilities fail with EPERM
)

// The actions; the words in brackets say what would have happened.
const (
	actionBlock      = "Block"
	actionAudit      = "Audit"
	actionAuditBlock = "Audit (Block)"
)

// enforcers are KubeArmor's names of the backends.
var enforcers = map[string]string{"bpflsm": "BPFLSM", "apparmor": "AppArmor", "selinux": "SELinux", "observe": "eBPF Monitor"}

// operations are KubeArmor's names of the classes.
var operations = map[policies.Class]string{
	policies.ClassProcess: "Process", policies.ClassFile: "File", policies.ClassNetwork: "Network",
	policies.ClassDNS: "Network", policies.ClassCapabilities: "Capabilities", policies.ClassSyscalls: "Syscall",
	policies.ClassDevice: "Device", policies.ClassIngress: "NetworkFirewall", policies.ClassEgress: "NetworkFirewall",
}

// presets are KubeArmor's names of what the presets do, and of themselves as enforcers.
var presets = map[string]struct{ operation, name string }{
	"filelessExec":     {"Process", "FilelessExecutionPreset"},
	"anonymousMapExec": {"File", "AnonMapExecutionPreset"},
	"protectEnv":       {"File", "ProtectEnvPreset"},
	"protectProc":      {"File", "ProtectProcPreset"},
}

// preset is the preset that a rule is about, "" for any other rule.
func preset(rule *enforce.Rule) string {
	if rule == nil || rule.Rule.Class != policies.ClassPreset {
		return ""
	}
	return rule.Rule.Object.Value
}

// Operations lists the words that a record's Operation may have.
func Operations() []string {
	return slices.Compact(slices.Sorted(maps.Values(operations)))
}

// Identity is what every record says of this host.
type Identity struct {
	Fleet    string
	Hostname string
	Backend  string
	Postures enforce.Postures
	// NoArguments keeps the arguments of programs, which may hold passwords, out of records.
	NoArguments bool
}

// Translate returns the records of one event: one for the rule or posture that decided, when that is worth
// one, and one for each audit rule that matched.
func Translate(ev enforce.Event, id Identity) []Record {
	var out []Record
	if ev.Rule != nil && (ev.Verdict == enforce.Deny || ev.WouldDeny) {
		out = append(out, inAudit(record(ev, id, ev.Rule, blockAction(ev)), ev.Rule))
	}
	if ev.Posture && (ev.Verdict == enforce.Deny || ev.WouldDeny) {
		out = append(out, inAudit(record(ev, id, nil, postureAction(ev, id)), ev.Lists...))
	}
	if ev.Rule == nil && !ev.Posture && ev.Verdict == enforce.Deny {
		// A path that could not be built: denied by no rule's name, and never silently.
		out = append(out, record(ev, id, nil, actionBlock))
	}
	if ev.Visible {
		out = append(out, seen(ev, id))
	}
	for _, rule := range ev.Audits {
		out = append(out, record(ev, id, rule, actionAudit))
	}
	for _, run := range ev.DryRuns {
		rule := run.Rule
		if run.Posture {
			rule = nil // named as it would be if the policy were enforced
		}
		out = append(out, inAudit(record(ev, id, rule, actionAuditBlock), run.Rule))
	}
	return out
}

// inAudit names the policies in audit that would have denied it.
func inAudit(r Record, rules ...*enforce.Rule) Record {
	if r.Action != actionAuditBlock {
		return r
	}
	for _, rule := range rules {
		if rule.Version != "" {
			r.EventData.DryRun = append(r.EventData.DryRun, DryRunName(rule.Policy, rule.Version))
		}
	}
	return r
}

// DryRunName is how events name a policy in audit: KIND/NAMESPACE/NAME@VERSION, without a namespace where it has none.
func DryRunName(id policies.ID, version string) string {
	name := string(id.Kind) + "/"
	if id.Namespace != "" {
		name += id.Namespace + "/"
	}
	return name + id.Name + "@" + version
}

// Alert is true when a rule or a posture made the record, false when it is there because everything is shown.
func (r *Record) Alert() bool { return r.PolicyName != "" }

// seen is the record of what no rule speaks of; KubeArmor calls it a log, not an alert, and names no policy in it.
func seen(ev enforce.Event, id Identity) Record {
	r := record(ev, id, nil, "")
	r.PolicyName, r.Type = "", "HostLog"
	if ev.Subject != enforce.Host {
		r.Type = "ContainerLog"
	}
	return r
}

func blockAction(ev enforce.Event) string {
	if ev.Verdict == enforce.Deny {
		return actionBlock
	}
	return actionAuditBlock
}

// postureAction tells an audit posture, which is meant to permit, from a block posture that only an audit
// mode kept from denying.
func postureAction(ev enforce.Event, id Identity) string {
	if ev.Verdict == enforce.Deny {
		return actionBlock
	}
	posture := id.Postures.File
	switch ev.Class {
	case policies.ClassNetwork, policies.ClassDNS, policies.ClassIngress, policies.ClassEgress:
		posture = id.Postures.Network
	case policies.ClassCapabilities:
		posture = id.Postures.Capabilities
	}
	if posture == enforce.PostureBlock && ev.Mode == enforce.ModeAudit {
		return actionAuditBlock
	}
	return actionAudit
}

func record(ev enforce.Event, id Identity, rule *enforce.Rule, action string) Record {
	r := Record{
		Timestamp: ev.Time.Unix(), UpdatedTime: ev.Time.UTC().Format(time.RFC3339Nano),
		ClusterName: id.Fleet, HostName: id.Hostname,
		HostPPID: int32(ev.PPID), HostPID: int32(ev.PID), PPID: int32(ev.PPID), PID: int32(ev.PID), UID: int32(ev.UID),
		ParentProcessName: ev.Parent, ProcessName: processName(ev),
		PolicyName: DefaultPosture, ATags: []string{},
		Type: "MatchedHostPolicy", Source: ev.Source, Operation: operations[ev.Class],
		Resource: ev.Resource, Data: data(ev, id), EventData: eventData(ev),
		Enforcer: enforcers[id.Backend], Action: action, Result: result(ev), Cwd: ev.Cwd, TTY: ev.TTY, Count: max(1, ev.Count),
	}
	if ev.Various {
		r.Resource, r.EventData.Example = "", ev.Resource
	}
	if p, ok := presets[preset(rule)]; ok {
		r.Operation, r.Enforcer = p.operation, "PRESET-"+p.name
	}
	if ev.Class == policies.ClassSyscalls {
		r.Enforcer = enforcers["observe"] // as KubeArmor has it: no security module has a say in it
	}
	if ev.Subject != enforce.Host {
		r.Type, r.ContainerID = "MatchedPolicy", string(ev.Subject)
	}
	if ev.Class == policies.ClassIngress || ev.Class == policies.ClassEgress {
		r.Type, r.Enforcer = "MatchedNetworkPolicy", "NetworkPolicyEnforcer" // of a posture too: no other kind has flows
	}
	if rule != nil {
		named(&r, rule)
	}
	return r
}

func named(r *Record, rule *enforce.Rule) {
	r.PolicyName = rule.Policy.Name
	r.NamespaceName = rule.Policy.Namespace
	r.Message = rule.Rule.Message
	r.Tags = strings.Join(rule.Rule.Tags, ",")
	r.ATags = append(r.ATags, rule.Rule.Tags...)
	if at := rule.Rule.Position; at.File != "" {
		r.EventData.Rule = fmt.Sprintf("%s:%d:%d", at.File, at.Line, at.Column)
	}
	if rule.Rule.Severity != 0 { // flows have any
		r.Severity = strconv.Itoa(rule.Rule.Severity)
	}
}

// processName is the path of the acting process; for an exec, what it tried to become.
func processName(ev enforce.Event) string {
	if ev.Class == policies.ClassProcess && ev.Resource != "" {
		return ev.Resource
	}
	if ev.Source != "" {
		return ev.Source
	}
	return path.Base(ev.Comm)
}

func result(ev enforce.Event) string {
	switch {
	case ev.Errno != 0:
		return failure(ev.Errno)
	case ev.Verdict != enforce.Deny:
		return resultPassed
	case ev.Class == policies.ClassCapabilities:
		return resultForbidden
	default:
		return resultDenied
	}
}

// failure is what a system call failed with, in the words of the C library.
func failure(errno int) string {
	text := syscall.Errno(errno).Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

func data(ev enforce.Event, id Identity) string {
	parts := []string{"lsm=" + ev.Hook}
	if ev.Class == policies.ClassSyscalls {
		parts = []string{ev.Data}
		ev.Data = ""
	}
	if ev.ResourceTo != "" {
		parts = append(parts, "to="+ev.ResourceTo)
	}
	if ev.Script != "" {
		parts = append(parts, "script="+ev.Script)
	}
	if ev.Data != "" {
		parts = append(parts, ev.Data)
	}
	if args := arguments(ev); args != "" && !id.NoArguments {
		parts = append(parts, "args="+args) // the last, so that none can be taken for anything else
	}
	return strings.Join(parts, " ")
}

// cutMark stands for arguments that an event does not have.
const cutMark = "…"

// arguments are words as a shell would read them.
func arguments(ev enforce.Event) string {
	words := make([]string, len(ev.Args))
	for i, arg := range ev.Args {
		words[i] = quoted(arg)
	}
	if ev.ArgsCut {
		words = append(words, cutMark)
	}
	return strings.Join(words, " ")
}

// plain are the bytes that mean nothing to a shell.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,@+%"

func quoted(arg string) string {
	if arg != "" && strings.Trim(arg, plain) == "" {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

func eventData(ev enforce.Event) EventData {
	out := EventData{Comm: ev.Comm, Lsm: ev.Hook, Operation: ev.Operation, Script: ev.Script, To: ev.ResourceTo}
	if ev.Mode == enforce.ModeAudit {
		out.Mode = string(ev.Mode)
	}
	if !ev.Since.IsZero() {
		out.Since = ev.Since.UTC().Format(time.RFC3339Nano)
	}
	return out
}
