// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

// The features of Capabilities.Features. Each is also the reason of the gap that its absence leaves.
const (
	FeaturePattern          = "pattern"
	FeatureExecName         = "execname"
	FeatureOwnerOnly        = "owner-only"
	FeaturePts              = "pts"
	FeatureAllowedArgs      = "allowed-args"
	FeatureContainerSubject = "container-subject"
	FeatureQuota            = "quota"
	// The next three are one thing to a backend that protects inodes: an exact-path Block then holds under
	// every name of the file. A backend that lacks one applies the rule by name and reports the gap.
	FeatureHardLink  = "hard-link"
	FeatureRename    = "rename"
	FeatureBindMount = "bind-mount"
)

// Reasons of gaps that no feature of a backend could avoid.
const (
	ReasonHostAllowList     = "host-allow-list"
	ReasonClass             = "class"
	ReasonMode              = "mode"
	ReasonPatternComplexity = "pattern-complexity"
	ReasonDNS               = "dns"
	ReasonSyscalls          = "syscalls"
)

// ModeLabel is the policy label that weakens one policy: enforce, audit or off.
const ModeLabel = "muster.dev/mode"
