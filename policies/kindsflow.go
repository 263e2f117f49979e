// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxPort is the highest port of TCP, UDP and SCTP.
const maxPort = 65535

// portNames are the names that a port may have.
var portNames = map[string]int{"http": 80, "https": 443, "ssh": 22, "dns": 53}

var (
	cidrFormat     = &format{check: checkCIDR, pattern: `^[0-9A-Fa-f:.]+/[0-9]+$`}
	portFormat     = &format{check: checkPort, pattern: `^([0-9]+|http|https|ssh|dns)$`}
	flowFormat     = &format{check: checkFlowProtocol, enum: []string{"TCP", "UDP", "SCTP", "tcp", "udp", "sctp"}, closed: true}
	ifaceFormat    = &format{check: checkInterface, maxLength: 15}
	limitFormat    = &format{check: checkLimit, pattern: `^[0-9]+(KB|MB|GB|K|M|G)?$`}
	durationFormat = &format{check: checkDuration, pattern: `^[0-9.hmsuµn]+$`}
	levelFormat    = &format{check: checkLevel, enum: []string{"Pod", "Policy", "pod", "policy"}, closed: true}
	deviceFormat   = &format{check: checkDeviceClass, maxLength: 64}
	numberFormat   = &format{check: checkDeviceNumber, pattern: `^(0[xX][0-9a-fA-F]+|[0-9]+)$`}
)

func networkSpec() *shape {
	s := object("What the policy is for and what it says.", annotatedBy(
		anySeverity(), specActionFormat,
		optional("nodeSelector", nodeSelector()),
		optional("selector", containerSelector("The pods that the policy is for.")),
		optional("ingress", listOf("Flows that others begin.", flowShape("from"))),
		optional("egress", listOf("Flows that the subject begins.", flowShape("to"))),
		optional("level", textual("Whose quota is counted.", levelFormat)),
	)...)
	s.verify = verifyNetworkSpec
	return s
}

// anySeverity: of this kind alone KubeArmor's CRD sets no bounds.
func anySeverity() *shape {
	return integer("Any whole number, carried in events.", math.MinInt, math.MaxInt)
}

func flowShape(peers string) *shape {
	peer := object("One peer.", required("ipBlock", object(
		"An address range.", required("cidr", textual("Address/prefix, IPv4 or IPv6.", cidrFormat)),
	)))
	portNumber := textual("A number, or http, https, ssh, dns.", portFormat)
	portNumber.integerToo = true
	port := object(
		"One port or range of ports.",
		required("port", portNumber),
		optional("endPort", integer("The last port of a range.", 1, maxPort)),
		optional("protocol", textual("TCP, UDP or SCTP; all of them when left out.", flowFormat)),
	)
	port.verify = verifyPort
	s := object("One kind of flow.", annotatedBy(
		anySeverity(), actionFormat,
		optional(peers, listOf("The other ends; any when left out.", peer)),
		optional("iface", listOf("Names of interfaces; any when left out.", textual("", ifaceFormat))),
		optional("ports", listOf("Ports; any when left out.", port)),
		optional("limit", textual("A quota such as 10MB.", limitFormat)),
		optional("duration", textual("When the quota starts anew, such as 24h.", durationFormat)),
		optional("level", textual("Whose quota is counted.", levelFormat)),
	)...)
	s.atLeastOne = []string{peers, "iface", "ports", "limit"}
	return s
}

func deviceSection() *shape {
	class := textual("The device class: a name, a decimal or a 0x number.", deviceFormat)
	class.integerToo = true
	number := func(doc string) *shape {
		s := textual(doc, numberFormat)
		s.integerToo = true
		return s
	}
	return sectionShape("Devices that are plugged in.", optional("matchDevice", listOf("By class.", ruleShape(
		"One device class.", []string{"class"},
		optional("class", class),
		optional("subClass", number("The device subclass.")),
		optional("protocol", number("The device protocol.")),
		optional("level", integer("The hub level.", 1, 255)),
	))))
}

func quoted(text string) string { return strconv.Quote(brief(text)) }

func checkCIDR(text string) *flaw {
	if _, err := netip.ParsePrefix(text); err == nil {
		return nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return &flaw{quoted(text) + " is no address range: it lacks a prefix length", fmt.Sprintf("write %s/%d", text, addr.BitLen())}
	}
	return &flaw{quoted(text) + " is no address range", "write address/prefix, such as 192.0.2.0/24 or 2001:db8::/32"}
}

// portNumber is the number that a port's text stands for, or 0.
func portNumber(text string) int {
	if n, ok := portNames[text]; ok {
		return n
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPort || text[0] == '+' {
		return 0
	}
	return n
}

func checkPort(text string) *flaw {
	if portNumber(text) != 0 {
		return nil
	}
	return &flaw{quoted(text) + " is no port", "write a number from 1 to 65535, or http, https, ssh, dns"}
}

func checkFlowProtocol(text string) *flaw { return oneOf("protocol of a flow", text, flowProtocols()) }

func flowProtocols() []string { return []string{"TCP", "UDP", "SCTP", "tcp", "udp", "sctp"} }

func checkInterface(text string) *flaw {
	if text == "" || len(text) > 15 || strings.ContainsAny(text, "/ \t\n\x00") || text == "." || text == ".." {
		return &flaw{quoted(text) + " is no interface name", "1 to 15 bytes without / and blanks"}
	}
	return nil
}

func checkLimit(text string) *flaw {
	digits := strings.TrimRight(text, "KMGB")
	unit := text[len(digits):]
	if _, err := strconv.ParseUint(digits, 10, 63); err != nil || !slices.Contains([]string{"", "K", "M", "G", "KB", "MB", "GB"}, unit) {
		return &flaw{quoted(text) + " is no quota", "write a number with KB, MB or GB"}
	}
	return nil
}

func checkDuration(text string) *flaw {
	if d, err := time.ParseDuration(text); err != nil || d <= 0 {
		return &flaw{quoted(text) + " is no duration", "write it as 30m or 24h"}
	}
	return nil
}

func checkLevel(text string) *flaw {
	return oneOf("level", text, []string{"Pod", "Policy", "pod", "policy"})
}

func checkDeviceClass(text string) *flaw {
	if text == "" || len(text) > 64 {
		return &flaw{quoted(text) + " is no device class", "write its name, its number or 0x and its number, at most 64 bytes"}
	}
	if c := rune(text[0]); '0' <= c && c <= '9' {
		return checkDeviceNumber(text)
	}
	for _, c := range text {
		if !isAlphanumeric(c) && c != '-' && c != '_' && c != ' ' {
			return &flaw{quoted(text) + " is no device class", "write its name, its number or 0x and its number"}
		}
	}
	return nil
}

func checkDeviceNumber(text string) *flaw {
	digits, base := text, 10
	if rest, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		digits, base = rest, 16
	}
	if _, err := strconv.ParseUint(digits, base, 8); err != nil {
		return &flaw{quoted(text) + " is no number from 0 to 255", "write it as 8 or 0x08"}
	}
	return nil
}
