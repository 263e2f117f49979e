// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package config is musterd's one configuration file: its type, its defaults and what is wrong with it.
//
// The file is parsed strictly: a key that is not known here, a value of another type, an anchor or a second
// document is an error with file, line and column. Nothing here reads anything but that one file; whether
// the files that it names exist and who may read them is Check's business.
package config

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// DefaultPath is where musterd looks for its configuration.
const DefaultPath = "/etc/muster/musterd.yaml"

// DefaultSocket is the control socket unless the configuration says otherwise.
const DefaultSocket = "/run/muster/musterd.sock"

// Config is the whole file.
type Config struct {
	// Source is where releases come from.
	Source Source `yaml:"source"`
	// Trust is the trust file: the keys that this host accepts and how many must agree.
	Trust string `yaml:"trust"`
	// Tenants are further pairs of trust and source; their rules are united with the host's own.
	Tenants []Tenant `yaml:"tenants"`
	// StateDir holds what must not be lost: marks, suspension, journal, spooled reports.
	StateDir string `yaml:"stateDir"`
	// CacheDir holds the last good releases.
	CacheDir string `yaml:"cacheDir"`
	// Socket is the control socket.
	Socket string `yaml:"socket"`
	// Mode is enforce, audit or off; the weakest of host and policy wins.
	Mode enforce.Mode `yaml:"mode"`
	// DriftInterval is how often the kernel is read back while nothing else happens.
	DriftInterval time.Duration `yaml:"driftInterval"`
	// Postures are the default postures of the host.
	Postures Postures `yaml:"postures"`
	// Visibility are the classes of which every operation is told as an event, whatever the policies say.
	Visibility []policies.Class `yaml:"visibility"`
	// AllowHostAllowlist accepts a host-wide Allow without fromSource.
	AllowHostAllowlist bool `yaml:"allowHostAllowlist"`
	// Protect adds to what must stay possible on this host; a ruleset that denies one of these is held.
	Protect []Protect `yaml:"protect"`
	// Labels is the one file with this host's own labels, "" for none; another than the default must exist.
	Labels string `yaml:"labels"`
	// HostID names this host in the fleet; empty means its hostname.
	HostID string `yaml:"hostId"`
	// HostKey is this host's own ed25519 key, made at first start.
	HostKey string `yaml:"hostKey"`
	// Status is where reports go.
	Status Status `yaml:"status"`
	// Events is where events go.
	Events Events `yaml:"events"`
	// Metrics is where Prometheus may read.
	Metrics Metrics `yaml:"metrics"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"logLevel"`
	// Backend is auto, bpflsm or observe.
	Backend string `yaml:"backend"`
	// BPFFS is the directory for pinned objects, on a bpf file system.
	BPFFS string `yaml:"bpffs"`
	// ProtectSelf keeps other processes, root's too, from taking enforcement or the agent away.
	ProtectSelf bool `yaml:"protectSelf"`
}

// Source is where releases come from and how often to look.
type Source struct {
	URL         string      `yaml:"url"`
	Credentials Credentials `yaml:"credentials"`
	// Interval is the time between two looks; Jitter is added at random, so that hosts spread.
	Interval time.Duration `yaml:"interval"`
	Jitter   time.Duration `yaml:"jitter"`
	// Schedule is a cron line (five fields, or @hourly and the like), in addition to the interval.
	Schedule string `yaml:"schedule"`
	// Timeout bounds one look and fetch.
	Timeout time.Duration `yaml:"timeout"`
	// Recheck is how often the signatures beside an unchanged artifact in a registry are listed again.
	Recheck time.Duration `yaml:"recheck"`
	// Mirrors are asked, in order, when the source fails or what it has is stale or refused.
	Mirrors []Mirror `yaml:"mirrors"`
}

// Mirror is another place that has the same channel.
type Mirror struct {
	URL         string      `yaml:"url"`
	Credentials Credentials `yaml:"credentials,omitempty"`
}

// Tenant is a team's pair of trust and source. What its releases may hold is its trust file's scope.
type Tenant struct {
	// Name is the tenant's in reports, and of its directories below stateDir and cacheDir.
	Name   string `yaml:"name"`
	Trust  string `yaml:"trust"`
	Source Source `yaml:"source"`
}

// setDefaults fills in what a tenant does not say.
func (t *Tenant) setDefaults() { t.Source = Default().Source }

// Credentials are files that hold secrets; the configuration itself holds none.
type Credentials struct {
	UsernameFile   string `yaml:"usernameFile,omitempty"`
	PasswordFile   string `yaml:"passwordFile,omitempty"`
	TokenFile      string `yaml:"tokenFile,omitempty"`
	SSHKeyFile     string `yaml:"sshKeyFile,omitempty"`
	KnownHostsFile string `yaml:"knownHostsFile,omitempty"`
	CAFile         string `yaml:"caFile,omitempty"`
	// DockerConfigFile is a docker configuration or a Kubernetes pull secret, for a registry.
	DockerConfigFile string `yaml:"dockerConfigFile,omitempty"`
	// ClientCertFile and ClientKeyFile are this host's certificate where TLS asks for one.
	ClientCertFile string `yaml:"clientCertFile,omitempty"`
	ClientKeyFile  string `yaml:"clientKeyFile,omitempty"`
	// Cloud asks a cloud for this machine's credentials for its registry: google, or empty.
	Cloud string `yaml:"cloud,omitempty"`
	// Proxy is a proxy's URL; empty takes the environment's.
	Proxy string `yaml:"proxy,omitempty"`
}

// Postures are the default postures.
type Postures struct {
	File         enforce.Posture `yaml:"file"`
	Network      enforce.Posture `yaml:"network"`
	Capabilities enforce.Posture `yaml:"capabilities"`
}

// Protect is one thing that must stay possible: Source runs or opens Object.
type Protect struct {
	Source string `yaml:"source"`
	Object string `yaml:"object"`
}

// Status is where reports go; an empty URL keeps them on the host.
type Status struct {
	URL         string      `yaml:"url"`
	Credentials Credentials `yaml:"credentials"`
	// Heartbeat is the time between two reports when nothing changes.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// Collect is auto (this host helps to fold the status branch) or off.
	Collect string `yaml:"collect"`
}

// Events is where events are written.
type Events struct {
	// Output is file, stdout or none.
	Output string `yaml:"output"`
	File   string `yaml:"file"`
	// The file is rotated at MaxSizeMB; MaxBackups old ones are kept for MaxAgeDays.
	MaxSizeMB  int  `yaml:"maxSizeMB"`
	MaxBackups int  `yaml:"maxBackups"`
	MaxAgeDays int  `yaml:"maxAgeDays"`
	Compress   bool `yaml:"compress"`
	// Queue is how many events may wait for the file; more are counted as lost.
	Queue int `yaml:"queue"`
	// Arguments says whether events have the arguments of programs, which may hold passwords.
	Arguments bool `yaml:"arguments"`
}

// Metrics is where metrics can be read.
type Metrics struct {
	// Socket is a unix socket; Listen is a TCP address and empty unless somebody wants a port.
	Socket string `yaml:"socket"`
	Listen string `yaml:"listen"`
}

// Default returns the configuration of an agent that was told nothing but its source.
func Default() Config {
	return Config{
		Source: Source{
			Interval: time.Minute,      // a change is on the host within two minutes
			Jitter:   10 * time.Second, // a thousand hosts do not knock in the same second
			Timeout:  2 * time.Minute,  // a slow source delays only the next look
			Recheck:  5 * time.Minute,  // an approval moves no tag; nothing else waits for this
		},
		Trust:         "/etc/muster/trust.yaml",
		StateDir:      "/var/lib/muster",
		CacheDir:      "/var/lib/muster/cache", // beside the state: a cache that is cleaned at boot is no last good release
		Socket:        DefaultSocket,
		Mode:          enforce.ModeEnforce,
		DriftInterval: 10 * time.Second,
		Postures: Postures{ // audit, as KubeArmor: an allow-list is tried before it denies
			File: enforce.PostureAudit, Network: enforce.PostureAudit, Capabilities: enforce.PostureAudit,
		},
		Labels:  "/etc/muster/labels.yaml",
		HostKey: "/var/lib/muster/host.key",
		Status:  Status{Heartbeat: 10 * time.Minute, Collect: "auto"},
		Events: Events{
			Output: "file", File: "/var/log/muster/events.jsonl",
			MaxSizeMB: 100, MaxBackups: 5, MaxAgeDays: 30, Compress: true,
			Queue:     16384, // some seconds of a busy allow-list in audit
			Arguments: true,
		},
		Metrics:  Metrics{Socket: "/run/muster/metrics.sock"},
		LogLevel: "info",
		Backend:  "auto",
		BPFFS:    "/sys/fs/bpf/muster",
	}
}

// EnforcePostures converts the postures for the compiler.
func (c *Config) EnforcePostures() enforce.Postures {
	return enforce.Postures{
		File: c.Postures.File, Network: c.Postures.Network, Capabilities: c.Postures.Capabilities,
	}
}

// Files returns every file that is named, by its key.
func (c Credentials) Files() map[string]string {
	return map[string]string{
		"usernameFile": c.UsernameFile, "passwordFile": c.PasswordFile, "tokenFile": c.TokenFile,
		"sshKeyFile": c.SSHKeyFile, "knownHostsFile": c.KnownHostsFile, "caFile": c.CAFile,
		"dockerConfigFile": c.DockerConfigFile, "clientCertFile": c.ClientCertFile, "clientKeyFile": c.ClientKeyFile,
	}
}

// Secret tells which of Files must be readable by nobody else.
func (c Credentials) Secret(key string) bool {
	switch key {
	case "passwordFile", "tokenFile", "sshKeyFile", "dockerConfigFile", "clientKeyFile":
		return true
	}
	return false
}

// AllCredentials are the source's credentials and its mirrors', by the key that holds them: "source",
// "source.mirrors[0]".
func (s *Source) AllCredentials(prefix string) map[string]Credentials {
	out := map[string]Credentials{prefix: s.Credentials}
	for i, m := range s.Mirrors {
		out[fmt.Sprintf("%s.mirrors[%d]", prefix, i)] = m.Credentials
	}
	return out
}
