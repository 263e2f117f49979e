// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

const starter = "../../examples/starter"

// The examples lint clean, compile without a gap, and decide as their comments promise.
func TestExamples(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := lint(&out, []string{starter + "/policies"}, "text"); err != nil || strings.Contains(out.String(), "warning") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	set, err := policies.Parse(os.DirFS(starter + "/policies"))
	if err != nil {
		t.Fatal(err)
	}
	host := policies.Subject{Host: true, Labels: map[string]string{"kubernetes.io/hostname": "web-1"}}
	selected := policies.Select(set, host)
	if len(selected) != 3 {
		t.Fatalf("%d policies are for a host", len(selected))
	}
	rs, gaps := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Policies: selected, Capabilities: enforcetest.Capabilities("bpflsm"),
	})
	if len(gaps) > 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	const (
		bundle = "/etc/ssl/certs/ca-certificates.crt"
		bash   = "/usr/bin/bash"
	)
	admin, updater := enforce.ProcessSource{Executable: bash}, enforce.ProcessSource{Executable: bash, Script: "/usr/local/sbin/updater"}
	for _, c := range []struct {
		class   policies.Class
		path    string
		source  enforce.ProcessSource
		read    bool
		want    enforce.Verdict
		audited bool
	}{
		{policies.ClassProcess, "/usr/bin/apt-get", admin, false, enforce.Deny, false},
		{policies.ClassProcess, "/usr/bin/apt-get", updater, false, enforce.Permit, false},
		{policies.ClassProcess, "/usr/bin/apt-get", enforce.ProcessSource{Executable: "/usr/bin/dash", Script: "/usr/lib/apt/apt.systemd.daily"}, false, enforce.Permit, false},
		{policies.ClassProcess, "/usr/bin/head", updater, false, enforce.Permit, false},
		{policies.ClassProcess, "/usr/bin/dpkg", admin, false, enforce.Permit, false},
		{policies.ClassProcess, "/usr/bin/pip", admin, false, enforce.Deny, false},
		{policies.ClassProcess, "/usr/local/bin/pip3.11", admin, false, enforce.Deny, false},
		{policies.ClassProcess, "/usr/bin/pipewire", admin, false, enforce.Permit, false},
		{policies.ClassFile, bundle, admin, true, enforce.Permit, false},
		{policies.ClassFile, bundle, admin, false, enforce.Deny, false},
		{policies.ClassFile, bundle, updater, false, enforce.Deny, false},
		{policies.ClassFile, "/etc/shadow", admin, true, enforce.Permit, true},
		{policies.ClassFile, "/etc/passwd", admin, true, enforce.Permit, false},
	} {
		d := rs.Decide(enforce.Operation{Class: c.class, Path: c.path, Source: c.source, Read: c.read})
		if d.Verdict != c.want || d.Posture || (len(d.Audits) > 0) != c.audited {
			t.Errorf("%s %s by %v: %+v", c.class, c.path, c.source, d)
		}
	}
}
