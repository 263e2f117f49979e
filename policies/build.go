// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// builder turns a document that was read without a problem into a policy.
type builder struct {
	at    func(*yaml.Node) Position
	rules []Rule
}

// notes are what inherits from spec to section to rule.
type notes struct {
	severity int
	tags     []string
	message  string
	action   Action
}

func (n notes) overriddenBy(v *value) notes {
	if s := v.get("severity"); s != nil {
		n.severity = s.integer
	}
	if tags := v.get("tags").texts(); len(tags) > 0 {
		n.tags = tags
	}
	if message := v.textOf("message"); message != "" {
		n.message = message
	}
	if action := v.textOf("action"); action != "" {
		n.action = Action(strings.ToUpper(action[:1]) + action[1:])
	}
	return n
}

func buildPolicy(kind Kind, v *value, at func(*yaml.Node) Position) *Policy {
	metadata, spec := v.get("metadata"), v.get("spec")
	p := &Policy{
		ID:       ID{Kind: kind, Name: metadata.textOf("name")},
		Labels:   metadata.get("labels").textMap(),
		Position: at(metadata.get("name").node),
	}
	p.Selector = buildSelector(spec)
	if kind == KindContainer || kind == KindNetwork && len(p.Selector.Node) == 0 {
		p.Namespace = metadata.textOf("namespace")
	}
	b := builder{at: at}
	inherited := notes{action: ActionBlock}.overriddenBy(spec)
	for _, m := range spec.members {
		b.part(m, spec, inherited)
	}
	p.Rules = slices.Clone(b.rules) // exactly as long: sets of ten thousand policies are kept in memory
	return p
}

func buildSelector(spec *value) Selector {
	s := Selector{Node: spec.get("nodeSelector").get("matchLabels").textMap()}
	selector := spec.get("selector")
	s.Labels = selector.get("matchLabels").textMap()
	if list := selector.get("matchExpressions"); list != nil {
		for _, e := range list.items {
			s.Expressions = append(s.Expressions, Expression{
				Key: e.textOf("key"), Operator: e.textOf("operator"), Values: e.get("values").texts(),
			})
		}
	}
	return s
}

// part builds the rules of one field of the spec.
func (b *builder) part(m member, spec *value, inherited notes) {
	switch m.name {
	case "process", "file", "network", "capabilities", "syscalls", "device":
		inherited = inherited.overriddenBy(m.value)
		for _, list := range m.value.members {
			maker, ok := objectMakers[m.name+"."+list.name]
			if !ok {
				continue // severity, tags, message, action
			}
			for _, item := range list.value.items {
				b.add(item, maker.class, inherited.overriddenBy(item), maker.objects(item)...)
			}
		}
	case "presets":
		for _, item := range m.value.items {
			b.add(item, ClassPreset, notes{action: ActionBlock}.overriddenBy(item), Object{Kind: ObjectPreset, Value: item.textOf("name")})
		}
	case "apparmor":
		if m.value.text != "" {
			b.add(m.value, ClassAppArmor, inherited, Object{Kind: ObjectAppArmor, Value: m.value.text})
		}
	case "ingress", "egress":
		for _, item := range m.value.items {
			b.add(item, Class(m.name), inherited.overriddenBy(item), flowObject(m.name, item, spec.textOf("level")))
		}
	}
}

// add appends one rule for each object; a comma list is several rules at one place.
func (b *builder) add(item *value, class Class, n notes, objects ...Object) {
	for _, o := range objects {
		r := Rule{
			Index: len(b.rules), Position: b.at(item.node), Class: class, Action: n.action, Object: o,
			OwnerOnly: item.truthOf("ownerOnly"), ReadOnly: item.truthOf("readOnly"),
			AllowedArgs: item.get("allowedArgs").texts(), HasArgs: item.get("allowedArgs") != nil,
			Severity: n.severity, Tags: n.tags, Message: n.message,
		}
		if pts := item.get("pts"); pts != nil {
			r.NoTerminal = !pts.truth
		}
		if sources := item.get("fromSource"); sources != nil {
			for _, s := range sources.items {
				r.Sources = append(r.Sources, Source{Path: s.textOf("path"), Dir: closed(s.textOf("dir")), Recursive: s.truthOf("recursive")})
			}
		}
		b.rules = append(b.rules, r)
	}
}

// closed gives a directory its closing slash.
func closed(dir string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir
	}
	return dir + "/"
}

// objectMaker makes the objects of the rules in one list of a section.
type objectMaker struct {
	class   Class
	objects func(*value) []Object
}

var objectMakers = map[string]objectMaker{
	"process.matchPaths":             {ClassProcess, pathObject},
	"process.matchDirectories":       {ClassProcess, directoryObject},
	"process.matchPatterns":          {ClassProcess, patternObject},
	"file.matchPaths":                {ClassFile, pathObject},
	"file.matchDirectories":          {ClassFile, directoryObject},
	"file.matchPatterns":             {ClassFile, patternObject},
	"network.matchProtocols":         {ClassNetwork, protocolObjects},
	"network.matchDNSQueries":        {ClassDNS, domainObject},
	"capabilities.matchCapabilities": {ClassCapabilities, capabilityObjects},
	"syscalls.matchSyscalls":         {ClassSyscalls, syscallObject},
	"syscalls.matchPaths":            {ClassSyscalls, syscallObject},
	"device.matchDevice":             {ClassDevice, deviceObject},
}

func pathObject(v *value) []Object {
	if name := v.textOf("execname"); name != "" {
		return []Object{{Kind: ObjectExecName, Value: name}}
	}
	return []Object{{Kind: ObjectPath, Value: v.textOf("path")}}
}

func directoryObject(v *value) []Object {
	return []Object{{Kind: ObjectDirectory, Value: v.textOf("dir"), Recursive: v.truthOf("recursive")}}
}

func patternObject(v *value) []Object {
	return []Object{{Kind: ObjectPattern, Value: v.textOf("pattern")}}
}

func protocolObjects(v *value) []Object {
	var list []Object
	for _, word := range splitList(v.textOf("protocol")) {
		list = append(list, Object{Kind: ObjectProtocol, Value: strings.ToLower(word)})
	}
	return list
}

func domainObject(v *value) []Object {
	return []Object{{Kind: ObjectDomain, Value: strings.ToLower(strings.TrimSuffix(v.textOf("domain"), "."))}}
}

func capabilityObjects(v *value) []Object {
	var list []Object
	for _, word := range splitList(v.textOf("capability")) {
		list = append(list, Object{Kind: ObjectCapability, Value: capabilityName(word)})
	}
	return list
}

func syscallObject(v *value) []Object {
	return []Object{{Kind: ObjectSyscall, Value: v.textOf("path"), Recursive: v.truthOf("recursive"), Syscalls: v.get("syscall").texts()}}
}

func deviceObject(v *value) []Object {
	d := Device{Class: v.textOf("class"), SubClass: v.textOf("subClass"), Protocol: v.textOf("protocol")}
	if level := v.get("level"); level != nil {
		d.Level = level.integer
	}
	return []Object{{Kind: ObjectDevice, Value: d.Class, Detail: detail(d)}}
}

func flowObject(direction string, v *value, level string) Object {
	f := Flow{
		Direction: direction, Interfaces: v.get("iface").texts(),
		Limit: v.textOf("limit"), Duration: v.textOf("duration"), Level: v.textOf("level"),
	}
	if f.Level == "" {
		f.Level = level
	}
	f.Level = strings.ToLower(f.Level)
	for _, name := range []string{"from", "to"} {
		if peers := v.get(name); peers != nil {
			for _, peer := range peers.items {
				prefix, _ := netip.ParsePrefix(peer.get("ipBlock").textOf("cidr")) // checked when read
				f.Peers = append(f.Peers, prefix.Masked().String())
			}
		}
	}
	if ports := v.get("ports"); ports != nil {
		for _, item := range ports.items {
			port := FlowPort{First: portNumber(item.textOf("port")), Protocol: strings.ToUpper(item.textOf("protocol"))}
			port.Last = port.First
			if last := item.get("endPort"); last != nil {
				port.Last = last.integer
			}
			f.Ports = append(f.Ports, port)
		}
	}
	return Object{Kind: ObjectFlow, Value: direction, Detail: detail(f)}
}

// detail is the canonical JSON of a value whose fields are declared in the order of their keys.
func detail(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "{}" // texts and numbers only: cannot fail
	}
	return string(text)
}
