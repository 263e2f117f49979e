// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "reflect"

// NeedRestart names the keys that a running agent took from running and that loaded changes: what was opened with
// them stays open, so that a reload alone would leave the change without effect.
func NeedRestart(running, loaded *Config) []string {
	var out []string
	for _, key := range []struct {
		name string
		of   func(*Config) any
	}{
		{"stateDir", func(c *Config) any { return c.StateDir }},
		{"socket", func(c *Config) any { return c.Socket }},
		{"hostKey", func(c *Config) any { return c.HostKey }},
		{"status.url", func(c *Config) any { return c.Status.URL }},
		{"status.credentials", func(c *Config) any { return c.Status.Credentials }},
		{"status.collect", func(c *Config) any { return c.Status.Collect }},
		{"events", func(c *Config) any { return c.Events }},
		{"metrics", func(c *Config) any { return c.Metrics }},
		{"logLevel", func(c *Config) any { return c.LogLevel }},
		{"backend", func(c *Config) any { return c.Backend }},
		{"bpffs", func(c *Config) any { return c.BPFFS }},
		{"protectSelf", func(c *Config) any { return c.ProtectSelf }},
	} {
		if !reflect.DeepEqual(key.of(running), key.of(loaded)) {
			out = append(out, key.name)
		}
	}
	return out
}
