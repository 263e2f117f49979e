// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// The headers are five lines and lack only rules; text is appended from line 6 on.
const (
	hostHeader = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: p}\nspec:\n  nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}\n"
	podHeader  = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p, namespace: web}\nspec:\n  severity: 3\n"
	flowHeader = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorNetworkPolicy\nmetadata: {name: p}\nspec:\n  nodeSelector: {matchLabels: {a: b}}\n"
)

// hinted checks that every problem says what to do about it.
func hinted(t *testing.T, problems Problems) {
	t.Helper()
	for _, p := range problems {
		if strings.TrimRight(p.Hint, ": ") != p.Hint || p.Hint == "" {
			t.Errorf("%s: the hint is %q", p, p.Hint)
		}
	}
}

// TestProblems holds one line for each way to be wrong: the document, where, and what must be said. Each comes with a hint.
func TestProblems(t *testing.T) {
	t.Parallel()
	longPath := "/" + strings.Repeat("a/", MaxPath/2) + "b"
	const noSyscall = podHeader + "  syscalls:\n    matchSyscalls:\n    - syscall: [a_call_of_nobody]\n"
	tests := []struct{ text, at, says string }{
		// Fields and types.
		{hostHeader + "  process:\n    matchPaths:\n    - path: /a\n      readOnly: true\n", "9:7", "readOnly"},
		{hostHeader + "  process:\n    matchPaths:\n    - {path: /a, Path: /b}\n", "8:18", "did you mean path"},
		{hostHeader + "  presets: [{name: exec}]\n", "6:3", "presets"},
		{podHeader + "  device: {}\n", "6:3", "device"},
		{podHeader + "  selector: {app: x}\n", "6:14", "app"},
		{podHeader + "  selector:\n    matchLabels: {a: 1}\n", "7:22", "must be text"},
		{podHeader + "  file:\n    matchPaths: {path: /a}\n", "7:17", "must be a list"},
		{podHeader + "  file: [a]\n", "6:9", "must be a mapping"},
		{podHeader + "  file:\n    matchPaths:\n    - path:\n", "8:12", "empty"},
		{podHeader + "  file:\n    matchPaths:\n    -\n", "8:6", "must be a mapping"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, recursive: true}\n", "8:18", "recursive"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, ownerOnly: maybe}\n", "8:29", "true or false"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, ownerOnly: \"true\"}\n", "8:29", "true or false"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, severity: high}\n", "8:28", "severity"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, severity: 0}\n", "8:28", "severity"},
		{podHeader + "  file:\n    matchPaths:\n    - {path: /a, severity: \"5\"}\n", "8:28", "without quotes"},
		{podHeader + "  file:\n    severity: 1.5\n", "7:15", "severity"},
		{podHeader + "  file:\n    severity:\n", "7:14", "severity"},
		{podHeader + "  tags: CIS\n", "6:9", "tags"},
		{podHeader + "  tags: [800]\n", "6:10", "tags"},
		{podHeader + "  message: 7\n", "6:12", "message"},
		{podHeader + "  apparmor: [x]\n", "6:13", "apparmor"},
		{podHeader + "  file:\n    matchPaths:\n    - path: /a\n      fromSource:\n      - dir: /b/\n", "10:9", "dir"},
		{podHeader + "  file:\n    matchPaths:\n    - path: /a\n      fromSource: [{}]\n", "9:20", "path"},
		{podHeader + "  file:\n    matchPaths:\n    - path: /a\n      fromSource:\n      - path: b\n", "10:15", "\"b\""},
		{podHeader + "  process:\n    matchPaths:\n    - path: /a\n      allowedArgs: [1]\n", "9:21", "quote it"},
		{podHeader + "  process:\n    matchPaths:\n    - path: /a\n      allowedArgs: [" + strings.Repeat("a,", 21) + "]\n", "9:61", "limit is 20"},
		// Actions.
		{podHeader + "  action: Deny\n", "6:11", "Deny"},
		{podHeader + "  action: BLOCK\n", "6:11", "BLOCK"},
		{podHeader + "  action: \"\"\n", "6:11", "action"},
		{podHeader + "  file:\n    action: audit\n", "7:13", "in a section or rule the action is written Audit"},
		{podHeader + "  presets:\n  - {name: exec, action: Log}\n", "7:26", "Log"},
		{podHeader + "  presets:\n  - {name: filelesExec}\n", "7:12", "did you mean filelessExec"},
		// Objects.
		{podHeader + "  process:\n    matchPaths:\n    - execname: a\n      path: /b\n", "9:7", "both path and execname"},
		{podHeader + "  process:\n    matchPaths:\n    - {action: Audit}\n", "8:7", "path or execname"},
		{podHeader + "  file:\n    matchPatterns:\n    - {path: /a}\n", "8:8", "path"},
		{podHeader + "  file:\n    matchDirectories:\n    - recursive: true\n", "8:7", "dir"},
		{podHeader + "  network:\n    matchProtocols:\n    - {}\n", "8:7", "protocol"},
		{podHeader + "  syscalls:\n    matchSyscalls:\n    - syscall: []\n", "8:16", "empty"},
		{podHeader + "  syscalls:\n    matchSyscalls:\n    - fromSource: [{path: /a}]\n", "8:7", "syscall"},
		{podHeader + "  syscalls:\n    matchPaths:\n    - syscall: [read]\n", "8:7", "path"},
		{podHeader + "  syscalls:\n    matchSyscalls:\n    - syscall: [reed]\n", "8:17", "did you mean read"},
		{podHeader + "  syscalls:\n    matchSyscalls:\n    - {syscall: [read], fromSource: [{path: /a, dir: /b/}]}\n", "8:49", "both path and dir"},
		{noSyscall, "8:17", "muster schema"},
		// Spelling of objects.
		{podHeader + "  file:\n    matchPaths: [{path: /a/}]\n", "7:25", "names a directory"},
		{podHeader + "  file:\n    matchPaths: [{path: \"\"}]\n", "7:25", "empty path"},
		{podHeader + "  file:\n    matchPaths: [{path: /a//b}]\n", "7:25", "/a//b"},
		{podHeader + "  file:\n    matchPaths: [{path: /a/../b}]\n", "7:25", "/a/../b"},
		{podHeader + "  file:\n    matchPaths: [{path: \"/a\\0\"}]\n", "7:25", "NUL"},
		{podHeader + "  file:\n    matchPaths: [{path: " + longPath + "}]\n", "7:25", "limit of 4095"},
		{podHeader + "  file:\n    matchDirectories: [{dir: /a}]\n", "7:30", "/a"},
		{podHeader + "  file:\n    matchDirectories: [{dir: a/}]\n", "7:30", "absolute"},
		{podHeader + "  process:\n    matchPaths: [{execname: a/b}]\n", "7:29", "a/b"},
		{podHeader + "  process:\n    matchPaths: [{execname: ..}]\n", "7:29", "no file name"},
		{podHeader + "  process:\n    matchPaths: [{execname: " + strings.Repeat("a", 256) + "}]\n", "7:29", "limit of 255"},
		{podHeader + "  file:\n    matchPatterns: [{pattern: \"/a[\"}]\n", "7:31", "/a["},
		{podHeader + "  file:\n    matchPatterns: [{pattern: \"/{a\"}]\n", "7:31", "bad pattern"},
		{podHeader + "  file:\n    matchPatterns:\n    - pattern: ^/proc/\\*/mem$\n", "8:16", "begins with /"},
		{podHeader + "  network:\n    matchProtocols: [{protocol: Tcp}]\n", "7:33", "Tcp"},
		{podHeader + "  network:\n    matchProtocols: [{protocol: \"tcp,upd\"}]\n", "7:33", "upd"},
		{podHeader + "  network:\n    matchProtocols: [{protocol: \"tcp,\"}]\n", "7:33", "protocol"},
		{podHeader + "  network:\n    matchDNSQueries: [{domain: \"*.example.com\"}]\n", "7:32", "*.example.com"},
		{podHeader + "  network:\n    matchDNSQueries: [{domain: a..b}]\n", "7:32", "a..b"},
		{podHeader + "  network:\n    matchDNSQueries: [{domain: .}]\n", "7:32", "empty"},
		{podHeader + "  network:\n    matchDNSQueries: [{domain: a/b}]\n", "7:32", "it holds"},
		{podHeader + "  network:\n    matchDNSQueries: [{domain: " + strings.Repeat("a.", 127) + "b}]\n", "7:32", "253"},
		{podHeader + "  capabilities:\n    matchCapabilities: [{capability: sys_everything}]\n", "7:38", "sys_everything"},
		// Names and selectors.
		{strings.Replace(podHeader, "name: p", "name: P_1", 1), "3:18", "P_1"},
		{strings.Replace(podHeader, "name: p", "name: "+strings.Repeat("a", 254), 1), "3:18", "RFC 1123"},
		{strings.Replace(podHeader, "name: p", "name: 7", 1), "3:18", "quote it"},
		{strings.Replace(podHeader, "name: p, ", "", 1), "3:11", "lacks name"},
		{strings.Replace(podHeader, "namespace: web", "namespace: Web", 1), "3:32", "Web"},
		{strings.Replace(podHeader, "namespace: web", "nmespace: web", 1), "3:21", "did you mean namespace"},
		{podHeader + "  selector:\n    matchExpressions:\n    - {key: labels, operator: In, values: [a=b]}\n", "8:13", "labels"},
		{podHeader + "  selector:\n    matchExpressions:\n    - {key: namespace, operator: In, values: [a]}\n", "8:13", "namespace"},
		{podHeader + "  selector:\n    matchExpressions:\n    - {key: label, operator: Exists, values: [a=b]}\n", "8:30", "Exists"},
		{podHeader + "  selector:\n    matchExpressions:\n    - {key: label, operator: In}\n", "8:7", "values"},
		{podHeader + "  selector:\n    matchExpressions:\n    - {key: label, operator: In, values: [app]}\n", "8:43", "label=value"},
		{strings.Replace(podHeader, "web}", "container_namespace}", 1) + "  selector: {matchLabels: {kubearmor.io/container.name: \"a(\"}}\n", "6:57", "regular expression"},
		{strings.Replace(podHeader, "web}", "container_namespace}", 1) + "  selector: {matchLabels: {kubearmor.io/container.name: \"a{1000}b{1000}c{1000}\"}}\n", "6:57", "too large"},
		{strings.Replace(podHeader, "web}", "container_namespace}", 1) + "  selector: {matchLabels: {kubearmor.io/container.name: \"a)|(b\"}}\n", "6:57", "regular expression"},
		{strings.Replace(hostHeader, "{matchLabels: {kubernetes.io/hostname: \"*\"}}", "{}", 1), "5:17", "nodeSelector"},
		{strings.Replace(hostHeader, "kubernetes.io/hostname: \"*\"", "", 1), "5:17", "nodeSelector"},
		{strings.Replace(hostHeader, "kubernetes.io/hostname: \"*\"", "kubernetes.io/hostnamereg: \"a(\"", 1), "5:59", "a("},
		{strings.Replace(hostHeader, "kubernetes.io/hostname: \"*\"", "\"\": b", 1), "5:32", "empty label name"},
		// Documents.
		{strings.Replace(podHeader, "KubeArmorPolicy", "KubeArmorPolicyy", 1), "2:7", "did you mean KubeArmorPolicy"},
		{strings.Replace(podHeader, "kind: KubeArmorPolicy\n", "", 1), "1:1", "kind"},
		{strings.Replace(podHeader, "apiVersion: security.kubearmor.com/v1\n", "", 1), "1:1", "apiVersion"},
		{strings.Replace(podHeader, "security.kubearmor.com/v1", "v1", 1), "1:13", "v1"},
		{"- a\n", "1:1", "must be a mapping"},
		{"a\n", "1:1", "must be a mapping"},
		{strings.Repeat("[", 70) + strings.Repeat("]", 70) + "\n", "1:66", "nesting"},
		{"kind: List\nitems: []\n", "1:1", "apiVersion: v1"},
		{podHeader + "  tags: &t [a]\n", "6:9", "anchor"},
		{podHeader + "  tags: *t\n", "6:3", "unknown anchor"},
		{podHeader + "  <<: {a: b}\n", "6:3", "<<"},
		{podHeader + "  message: !!str 7\n", "6:12", "tag"},
		{podHeader + "  file: {}\n  file: {}\n", "7:3", "file"},
		{podHeader + "  file:\n    severity: 2\n    severity: 3\n", "8:5", "severity"},
		{"apiVersion: v1\nkind: List\nitems:\n- kind: KubeArmorPolicy\n  kind: KubeArmorPolicy\n  apiVersion: security.kubearmor.com/v1\n  metadata: {name: p}\n  spec: {}\n", "5:3", "duplicate key"},
		{"apiVersion: v1\nkind: List\nitem: []\nitems: []\n", "3:1", "did you mean items"},
		{podHeader + "status:\n  a: [{b: 1, b: 2}]\n", "7:14", "duplicate key"},
		{podHeader + "status: {}\nextra: 1\n", "7:1", "extra"},
		{podHeader + "---\n" + hostHeader + "  filed: {}\n", "12:3", "filed"},
		{podHeader + "\tfile: {}\n", "6:2", "not YAML"},
		{podHeader + "  file: [\n", "6:3", "not YAML"},
		{podHeader + "  message: a: b\n", "6:3", "not YAML"},
		{podHeader + "  message: a: \n  tags: []\n", "6:3", "not YAML"},
		{podHeader + "  message: ]\n  tags: []\n", "6:3", "not YAML"},
		{podHeader + "  tags: [a,\n  'b' 'c']\n  file: {}\n", "7:3", "not YAML"},
		{podHeader + "  tags: [a, b}\n  message: b\n", "6:3", "not YAML"},
		{podHeader + "  message: \"b\n  tags: []\n", "6:3", "not YAML"},
		{podHeader + "  bare\n  tags: []\n", "6:3", "not YAML"},
		{podHeader + "  tags: []\n   message: a\n  file: {}\n", "7:4", "not YAML"},
		{podHeader + "  file:\n    matchPaths:\n    - path: /a\n   - path: /b\n", "9:4", "not YAML"},
		{"a: b\n}\n", "2:1", "not YAML"},
		{"@\n", "1:1", "not YAML"},
		{podHeader + " message: a\n", "6:2", "not YAML"},
		{podHeader + "  message: \xff\n", "6:12", "UTF-8"},
		{podHeader + "  message: a\rb\n", "6:13", "UTF-8"},
		{podHeader + "  message: \"\u2028\"\n", "6:13", "UTF-8"},
		{strings.ReplaceAll(podHeader+"---\n"+hostHeader+"  filed: {}\n", "\n", "\r\n"), "12:3", "filed"},
		{podHeader + "#" + strings.Repeat("x", MaxDocument), "1:1", "exceeds the limit"},
		{podHeader + "---\n#" + strings.Repeat("x", MaxDocument), "6:1", "exceeds the limit"},
		// Flows and devices.
		{strings.Replace(flowHeader, "nodeSelector: {matchLabels: {a: b}}", "severity: 1", 1), "5:3", "nodeSelector"},
		{flowHeader + "  selector: {}\n", "6:3", "both nodeSelector and selector"},
		{flowHeader + "  egress: [{}]\n", "6:12", "to, iface, ports, limit"},
		{flowHeader + "  egress:\n  - from: []\n", "7:5", "from"},
		{flowHeader + "  egress:\n  - to: [{ipBlock: {cidr: 192.0.2.7}}]\n", "7:27", "192.0.2.7/32"},
		{flowHeader + "  egress:\n  - to: [{ipBlock: {cidr: 192.0.2.0/33}}]\n", "7:27", "192.0.2.0/33"},
		{flowHeader + "  ingress:\n  - from: [{}]\n", "7:12", "ipBlock"},
		{flowHeader + "  egress:\n  - ports: [{port: \"0\"}]\n", "7:20", "port"},
		{flowHeader + "  egress:\n  - ports: [{port: 70000}]\n", "7:20", "70000"},
		{flowHeader + "  egress:\n  - ports: [{port: ftp}]\n", "7:20", "ftp"},
		{flowHeader + "  egress:\n  - ports: [{port: 80, endPort: 79}]\n", "7:33", "below"},
		{flowHeader + "  egress:\n  - ports: [{port: 80, endPort: 65536}]\n", "7:33", "65536"},
		{flowHeader + "  egress:\n  - ports: [{port: 80, protocol: ICMP}]\n", "7:34", "ICMP"},
		{flowHeader + "  egress:\n  - {limit: 10TB}\n", "7:13", "10TB"},
		{flowHeader + "  egress:\n  - {limit: 10MB, duration: soon}\n", "7:29", "soon"},
		{flowHeader + "  egress:\n  - {iface: [a/b]}\n", "7:14", "a/b"},
		{hostHeader + "  device:\n    matchDevice: [{subClass: 1}]\n", "7:19", "class"},
		{hostHeader + "  device:\n    matchDevice: [{class: \"0x100\"}]\n", "7:27", "0x100"},
		{hostHeader + "  device:\n    matchDevice: [{class: 8, level: 0}]\n", "7:37", "level"},
		{hostHeader + "  device:\n    matchDevice: [{class: \"\"}]\n", "7:27", "no device class"},
	}
	for _, tt := range tests {
		_, err := ParseDocument("f.yaml", []byte(tt.text))
		var problems Problems
		if !errors.As(err, &problems) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%.400s\n  is no problem: %v; want %s %s", tt.text, err, tt.at, tt.says)
			continue
		}
		said := fmt.Sprintf("%s (%s)", problems[0], problems[0].Hint)
		if len(problems) != 1 || !strings.HasPrefix(said, "f.yaml:"+tt.at+": ") || !strings.Contains(said, tt.says) {
			t.Errorf("%.400s\n  says %v (%s)\n  want %s %s", tt.text, problems, problems[0].Hint, tt.at, tt.says)
		}
		hinted(t, problems)
	}
}

// TestEveryProblemIsTold checks that one reading finds all problems of all files, in order.
func TestEveryProblemIsTold(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"b.yml":                {Data: []byte(hostHeader + "  files: {}\n  severity: 11\n  process:\n    matchPaths:\n    - {path: a}\n    - {pth: /a}\n---\nkind: X\n")},
		"sub/a.yaml":           {Data: []byte(hostHeader)},
		"sub/again.yaml":       {Data: []byte("---\n# again\n" + hostHeader)},
		"readme.md":            {Data: []byte("{")},
		"muster.yaml":          {Data: []byte("not: a policy\n")},
		"rollout.yaml":         {Data: []byte("not: a policy\n")},
		"waivers/w.yaml":       {Data: []byte("not: a policy\n")},
		".muster/release.yaml": {Data: []byte("not: a policy\n")},
		"sub/muster.yaml":      {Data: []byte("x: y\n")},
	}
	_, err := Parse(files)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var places []string
	for _, p := range problems {
		places = append(places, p.Position.String())
	}
	want := "b.yml:6:3 b.yml:7:13 b.yml:10:14 b.yml:11:8 b.yml:13:7 sub/again.yaml:5:18 sub/muster.yaml:1:1"
	hinted(t, problems)
	if have := strings.Join(places, " "); have != want {
		t.Errorf("problems at\n  %s\nwant\n  %s\n%v", have, want, problems)
	}
}

// TestProblemsAreBounded checks that a document full of mistakes does not become a message without end.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := ParseDocument("f.yaml", []byte(strings.Repeat("--- a\n", 100_000)))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) > maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
	hinted(t, problems)
}
