// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/fleet/statusref"
)

// labHost is the host's name in the fleet of a lab that reports.
const labHost = "lab-1"

func (l *lab) statusRepo() string { return filepath.Join(l.dir, "status.git") }

func (l *lab) enrolment() string { return filepath.Join(l.dir, fleet.EnrolledFile) }

// reportTo gives an agent that has not begun yet a status repository.
func (l *lab) reportTo() {
	l.t.Helper()
	l.git("init", "-q", "--bare", l.statusRepo())
	text, err := os.ReadFile(l.config())
	l.must(err)
	l.must(os.WriteFile(l.config(), fmt.Appendf(text, "hostId: %s\nstatus: {url: \"file://%s\", heartbeat: 10s}\n", labHost, l.statusRepo()), 0o600))
}

// enrol adds the key that the agent made at its first start to what is published next.
func (l *lab) enrol(files map[string][]byte) map[string][]byte {
	l.t.Helper()
	key, err := fleet.LoadHostKey(filepath.Join(l.dir, "state", "host.key"))
	l.must(err)
	files[fleet.EnrolledFile] = []byte(key.AllowedLine(labHost))
	l.must(os.WriteFile(l.enrolment(), files[fleet.EnrolledFile], 0o600))
	return files
}

// tip is the commit that a ref of the status repository is at, "" while there is none.
func (l *lab) tip(ref string) string {
	out, err := exec.CommandContext(l.t.Context(), "git", "--git-dir", l.statusRepo(), "rev-parse", "-q", "--verify", ref).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// shown is a file of a commit of the status repository.
func (l *lab) shown(commit, name string) []byte {
	l.t.Helper()
	text, err := exec.CommandContext(l.t.Context(), "git", "--git-dir", l.statusRepo(), "show", commit+":"+name).Output()
	l.must(err)
	return text
}

// signed is a file of a commit of the status repository whose signature beside it OpenSSH accepts as this host's.
func (l *lab) signed(commit, name, namespace string) []byte {
	l.t.Helper()
	text, signature := l.shown(commit, name), filepath.Join(l.dir, "signature")
	l.must(os.WriteFile(signature, l.shown(commit, name+".sig"), 0o600))
	verify := exec.CommandContext(l.t.Context(), "ssh-keygen", "-Y", "verify", "-f", l.enrolment(), "-I", labHost, "-n", namespace, "-s", signature)
	verify.Stdin = bytes.NewReader(text)
	if out, err := verify.CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v: %s\n%s", name, err, out, text)
	}
	return text
}

// reported waits until the host's own ref holds a report, signed with the host's key, that says what is enforced
// and that the policy denied something.
func (l *lab) reported(policy string) {
	l.t.Helper()
	var r fleet.Report
	l.wait("a signed report of the denial on the host's ref", func() bool {
		tip := l.tip(statusref.Remote{}.HostRef(labHost).String())
		if tip == "" {
			return false
		}
		r = fleet.Report{}
		l.must(json.Unmarshal(l.signed(tip, "report.json", fleet.NamespaceReport), &r))
		return r.State == fleet.StateEnforced && slices.ContainsFunc(r.Events, func(e fleet.EventCount) bool {
			return strings.HasSuffix(e.Policy, policy) && e.Action == "Block" && e.Count > 0
		})
	})
	if r.Fleet != l.fleet || r.Host != labHost || r.Backend != "bpflsm" || len(r.Releases) != 1 || r.Releases[0].Sequence != l.sequence {
		l.t.Errorf("report: %+v", r)
	}
	if len(r.Subjects) != 1 || r.Subjects[0].Declared == "" || r.Subjects[0].Declared != r.Subjects[0].Observed {
		l.t.Errorf("subjects of the report: %+v", r.Subjects)
	}
}

// folded waits until the status branch says so, in the roll that the host signed and in the table for people.
func (l *lab) folded() {
	l.t.Helper()
	row := fmt.Sprintf("| `%s` | %s | `", labHost, fleet.StateEnforced)
	var tip, table string
	l.wait("the host's row in the table of the status branch", func() bool {
		if tip = l.tip(statusref.StatusBranch.String()); tip == "" {
			return false
		}
		table = string(l.shown(tip, "README.md"))
		return strings.Contains(table, row)
	})
	var roll fleet.Roll
	l.must(json.Unmarshal(l.signed(tip, "roll.json", fleet.NamespaceRoll), &roll))
	if len(roll.Hosts) != 1 || roll.Hosts[0].Host != labHost || roll.Hosts[0].State != fleet.StateEnforced || len(roll.Unenrolled)+len(roll.Rejected) > 0 {
		l.t.Errorf("roll: %+v", roll)
	}
	l.t.Logf("README.md of the branch status:\n%s", table)
}
