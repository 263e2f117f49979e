// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// Flow is what a packet belongs to, as seen from the subject: who is at the other end, by which protocol, at which
// port (of the other end for egress, of the subject for ingress), through which interface.
type Flow struct {
	Peer netip.Addr `json:"peer"`
	// Protocol is TCP, UDP or SCTP, or "" for one without ports; Port is then 0.
	Protocol string `json:"protocol,omitempty"`
	Port     int    `json:"port,omitempty"`
	// Interface is "" while it is not known.
	Interface string `json:"interface,omitempty"`
}

// Path writes a flow as a path, so that the automata serve: the family and the address, the protocol, the port, an
// equals sign and the interface. Numbers are written in letters, a to p for each half byte, because those stand side
// by side: 192.0.2.7, UDP, port 9 through eth0 is /4maaaacah/u/aaaj/=eth0.
func (f *Flow) Path() string {
	peer := f.Peer.Unmap()
	return fmt.Sprintf("/%c%s/%c/%s/=%s", family(peer), letters(peer.AsSlice()), protocolLetter(f.Protocol),
		letters([]byte{byte(f.Port >> 8), byte(f.Port)}), f.Interface)
}

// ParseFlowPath reads what Path writes.
func ParseFlowPath(path string) (Flow, bool) {
	parts := strings.SplitN(path, "/", 5)
	if len(parts) != 5 || parts[0] != "" || len(parts[1]) == 0 || len(parts[2]) != 1 || !strings.HasPrefix(parts[4], "=") {
		return Flow{}, false
	}
	peer, ok := netip.AddrFromSlice(numbers(parts[1][1:]))
	port := numbers(parts[3])
	if !ok || len(port) != 2 {
		return Flow{}, false
	}
	f := Flow{Peer: peer, Port: int(port[0])<<8 | int(port[1]), Interface: parts[4][1:]}
	for _, p := range policies.FlowProtocols() {
		if protocolLetter(p) == parts[2][0] {
			f.Protocol = p
		}
	}
	return f, true
}

// flowMatchers are the patterns of a rule on flows: one for each peer and each range of ports.
func flowMatchers(index int, r *Rule) []automaton.Matcher {
	f, err := r.Rule.Object.Flow()
	if err != nil {
		return nil // a Detail that package policies wrote can be read
	}
	peers := []string{"*"}
	if len(f.Peers) > 0 {
		peers = nil
		for _, p := range f.Prefixes() {
			peers = append(peers, prefixPattern(p))
		}
	}
	ports := []string{"?/*"}
	if len(f.Ports) > 0 {
		ports = nil
		for _, p := range f.Ports {
			ports = append(ports, portPattern(p))
		}
	}
	var matchers []automaton.Matcher
	for _, peer := range peers {
		for _, port := range ports {
			text := fmt.Sprintf("/%s/%s/=%s", peer, port, interfacePattern(f.Interfaces))
			matchers = append(matchers, automaton.Matcher{Index: index, Kind: automaton.Pattern, Text: text})
		}
	}
	return matchers
}

func prefixPattern(p netip.Prefix) string {
	address := letters(p.Addr().AsSlice())
	whole, rest := p.Bits()/4, p.Bits()%4
	text := string(family(p.Addr())) + address[:whole]
	if rest > 0 {
		first := address[whole]
		text += fmt.Sprintf("[%c-%c]", first, first+byte(1<<(4-rest)-1))
		whole++
	}
	if whole < len(address) {
		text += "*"
	}
	return text
}

func portPattern(p policies.FlowPort) string {
	protocol := "[stu]"
	if p.Protocol != "" {
		protocol = string(protocolLetter(p.Protocol))
	}
	return protocol + "/" + anyOf(rangePatterns("", p.First, p.Last, 1<<16))
}

// rangePatterns are the patterns of the numbers from first to last, in as many letters as it takes to count to size:
// those of the first letter with all numbers behind it together, and the others each by itself.
func rangePatterns(before string, first, last, size int) []string {
	var patterns []string
	part := size / 16
	whole := func(n int) bool { return n*part >= first && (n+1)*part-1 <= last }
	for n := first / part; n <= last/part; n++ {
		if !whole(n) {
			from, to := max(first-n*part, 0), min(last-n*part, part-1)
			patterns = append(patterns, rangePatterns(before+string(letter(n)), from, to, part)...)
			continue
		}
		end := n
		for end < 15 && whole(end+1) {
			end++
		}
		patterns = append(patterns, before+letterRange(n, end)+strings.Repeat("?", letterCount(part)))
		n = end
	}
	return patterns
}

// letterRange is the pattern of the letters from first to last.
func letterRange(first, last int) string {
	if first == last {
		return string(letter(first))
	}
	return fmt.Sprintf("[%c-%c]", letter(first), letter(last))
}

func letterCount(size int) (n int) {
	for ; size > 1; size /= 16 {
		n++
	}
	return n
}

func interfacePattern(names []string) string {
	if len(names) == 0 {
		return "*"
	}
	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = strings.ReplaceAll(escapePattern(name), ",", `\,`)
	}
	return anyOf(escaped)
}

func anyOf(patterns []string) string {
	if len(patterns) == 1 {
		return patterns[0]
	}
	return "{" + strings.Join(patterns, ",") + "}"
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return '4'
	}
	return '6'
}

func protocolLetter(protocol string) byte {
	if protocol == "" {
		return 'o'
	}
	return protocol[0] | 0x20
}

func letter(n int) byte { return byte('a' + n) }

func letters(b []byte) string {
	text := make([]byte, 0, 2*len(b))
	for _, c := range b {
		text = append(text, letter(int(c>>4)), letter(int(c&15)))
	}
	return string(text)
}

// numbers reads what letters wrote; nil when nothing of that kind was written.
func numbers(text string) []byte {
	if len(text)%2 != 0 || strings.Trim(text, "abcdefghijklmnop") != "" {
		return nil
	}
	b := make([]byte, len(text)/2)
	for i := range b {
		b[i] = (text[2*i]-'a')<<4 | (text[2*i+1] - 'a')
	}
	return b
}

// hasQuota: a rule that permits so much and no more is none that a decision about one packet can make.
func hasQuota(r *policies.Rule) bool {
	if r.Object.Kind != policies.ObjectFlow {
		return false
	}
	f, err := r.Object.Flow()
	return err != nil || f.Limit != "" || f.Duration != ""
}

// NamesInterfaces says whether some rule of the class is for one interface only.
func (rs *Ruleset) NamesInterfaces(class policies.Class) bool {
	return slices.ContainsFunc(rs.Rules, func(r Rule) bool {
		if r.Rule.Class != class || r.Rule.Object.Kind != policies.ObjectFlow {
			return false
		}
		f, err := r.Rule.Object.Flow()
		return err == nil && len(f.Interfaces) > 0
	})
}
