// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

var hostIDPattern = regexp.MustCompile(`^[a-z0-9.-]{1,63}$`)

// visible are the classes that can be shown.
var visible = []string{
	string(policies.ClassProcess), string(policies.ClassFile), string(policies.ClassNetwork),
	string(policies.ClassCapabilities), string(policies.ClassDNS),
}

// checker collects problems and finds the position of a key.
type checker struct {
	file     string
	root     *yaml.Node
	problems []Problem
}

// validate finds what is wrong with values that have the right types.
func validate(file string, root *yaml.Node, c *Config) []Problem {
	v := &checker{file: file, root: root}
	v.source("source", &c.Source)
	v.tenants(c)
	v.atLeast("driftInterval", c.DriftInterval, time.Second)
	v.atLeast("status.heartbeat", c.Status.Heartbeat, 10*time.Second)
	v.oneOf("mode", string(c.Mode), string(enforce.ModeEnforce), string(enforce.ModeAudit), string(enforce.ModeOff))
	for key, posture := range map[string]enforce.Posture{
		"postures.file": c.Postures.File, "postures.network": c.Postures.Network, "postures.capabilities": c.Postures.Capabilities,
	} {
		v.oneOf(key, string(posture), string(enforce.PostureAudit), string(enforce.PostureBlock))
	}
	for i, class := range c.Visibility {
		v.oneOf(fmt.Sprintf("visibility[%d]", i), string(class), visible...)
	}
	v.oneOf("status.collect", c.Status.Collect, "auto", "off")
	v.oneOf("events.output", c.Events.Output, "file", "stdout", "none")
	v.oneOf("logLevel", c.LogLevel, "debug", "info", "warn", "error")
	v.oneOf("backend", c.Backend, "auto", "bpflsm", "observe")
	v.require(c.HostID == "" || hostIDPattern.MatchString(c.HostID), "hostId", "must match [a-z0-9.-]{1,63}", "leave it out to use the hostname")
	v.require(!c.ProtectSelf || c.HostID != "", "hostId", "is needed with protectSelf", "root can change the host name, and a stand-down is for one host")
	v.paths(c)
	v.events(c)
	if c.Metrics.Listen != "" {
		_, _, err := net.SplitHostPort(c.Metrics.Listen)
		v.require(err == nil, "metrics.listen", "is no address with a port", "for example 127.0.0.1:9464")
	}
	slices.SortFunc(v.problems, func(a, b Problem) int { return strings.Compare(a.Message, b.Message) })
	return v.problems
}

// source checks one source of releases; prefix is its place in the file.
func (v *checker) source(prefix string, s *Source) {
	v.require(s.URL != "", prefix+".url", "is needed", "the Git repository or registry that holds the release channel")
	v.atLeast(prefix+".interval", s.Interval, time.Second)
	v.atLeast(prefix+".jitter", s.Jitter, 0)
	v.atLeast(prefix+".timeout", s.Timeout, time.Second)
	v.atLeast(prefix+".recheck", s.Recheck, time.Second)
	for i, m := range s.Mirrors {
		v.require(m.URL != "", fmt.Sprintf("%s.mirrors[%d].url", prefix, i), "is needed", "")
	}
	for where, credentials := range s.AllCredentials(prefix) {
		v.credentials(where, credentials)
	}
	if s.Schedule != "" {
		_, err := cron.ParseStandard(s.Schedule)
		v.require(err == nil, prefix+".schedule", fmt.Sprintf("is no cron line: %v", err), "five fields such as \"*/5 * * * *\", or @hourly")
	}
}

// maxTenants bounds the sources that one host looks at.
const maxTenants = 16

var tenantName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func (v *checker) tenants(c *Config) {
	v.require(len(c.Tenants) <= maxTenants, "tenants", fmt.Sprintf("are %d, the most is %d", len(c.Tenants), maxTenants), "")
	seen := map[string]bool{}
	for i := range c.Tenants {
		t := &c.Tenants[i]
		prefix := fmt.Sprintf("tenants[%d]", i)
		v.require(tenantName.MatchString(t.Name), prefix+".name", "must be a-z, 0-9 and -, at most 32", "")
		v.require(!seen[t.Name], prefix+".name", fmt.Sprintf("%q is used twice", clip(t.Name)), "")
		seen[t.Name] = true
		v.require(filepath.IsAbs(t.Trust), prefix+".trust", "must be an absolute path", "each tenant has a trust file of its own")
		v.require(t.Trust != c.Trust, prefix+".trust", "is the host's own trust file", "each tenant has a trust file of its own")
		v.source(prefix+".source", &t.Source)
	}
}

// paths checks that every file name is absolute, so that no meaning hangs on a working directory.
func (v *checker) paths(c *Config) {
	required := map[string]string{
		"trust": c.Trust, "stateDir": c.StateDir, "cacheDir": c.CacheDir, "socket": c.Socket,
		"hostKey": c.HostKey, "bpffs": c.BPFFS,
	}
	for key, path := range required {
		v.require(filepath.IsAbs(path), key, "must be an absolute path", "")
	}
	optional := map[string]string{"labels": c.Labels, "metrics.socket": c.Metrics.Socket}
	v.credentials("status", c.Status.Credentials)
	for key, path := range optional {
		v.require(path == "" || filepath.IsAbs(path), key, "must be an absolute path", "")
	}
	for i, p := range c.Protect {
		ok := filepath.IsAbs(p.Source) && filepath.IsAbs(p.Object)
		v.require(ok, fmt.Sprintf("protect[%d]", i), "needs an absolute source and an absolute object", "")
	}
}

func (v *checker) credentials(where string, c Credentials) {
	for key, path := range c.Files() {
		v.require(path == "" || filepath.IsAbs(path), where+".credentials."+key, "must be an absolute path", "")
	}
}

func (v *checker) events(c *Config) {
	if c.Events.Output == "file" {
		v.require(filepath.IsAbs(c.Events.File), "events.file", "must be an absolute path", "")
	}
	for key, value := range map[string]int{
		"events.maxSizeMB": c.Events.MaxSizeMB, "events.queue": c.Events.Queue,
	} {
		v.require(value >= 1 && value <= 1<<20, key, "must be between 1 and 1048576", "")
	}
	for key, value := range map[string]int{
		"events.maxBackups": c.Events.MaxBackups, "events.maxAgeDays": c.Events.MaxAgeDays,
	} {
		v.require(value >= 0 && value <= 1<<20, key, "must not be negative", "")
	}
}

func (v *checker) atLeast(key string, value, least time.Duration) {
	v.require(value >= least, key, fmt.Sprintf("is %v, the least is %v", value, least), "")
}

func (v *checker) oneOf(key, value string, allowed ...string) {
	v.require(slices.Contains(allowed, value), key, fmt.Sprintf("is %q", clip(value)), "one of: "+strings.Join(allowed, ", "))
}

func (v *checker) require(ok bool, key, message, hint string) {
	if ok {
		return
	}
	at := find(v.root, strings.Split(key, "."))
	v.problems = append(v.problems, problemAt(v.file, at, key+" "+message, hint))
}

// find returns the node of the longest part of path that exists.
func find(node *yaml.Node, path []string) *yaml.Node {
	for _, key := range path {
		key, _, _ = strings.Cut(key, "[")
		next := (*yaml.Node)(nil)
		for i := 0; i+1 < len(node.Content) && node.Kind == yaml.MappingNode; i += 2 {
			if node.Content[i].Value == key {
				next = node.Content[i+1]
			}
		}
		if next == nil {
			return node
		}
		node = next
	}
	return node
}
