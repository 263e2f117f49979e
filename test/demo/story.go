// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"time"
)

// The VM plays three parts: the desk of somebody who writes policies (/root/policies), the Git hosting
// (/srv/git), and the host that obeys. Commands are those of the README.
func story() []step {
	var all []step
	for _, chapter := range [][]step{writing(), joining(), obeying(), tampering(), attacking(), fixing()} {
		all = append(all, chapter...)
	}
	return all
}

func match(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// soon is how long a thing may take that the agent does by itself, on an emulated processor.
const soon = time.Minute

func writing() []step {
	return []step{
		{"The Git hosting: a repository for policies, and one for what hosts report.", []run{
			{command: "git init -q --bare -b main /srv/git/policies.git && git init -q --bare -b main /srv/git/status.git && mkdir /root/policies"},
		}},
		{"A policy repository: muster init writes its first files, muster keys new makes a signing key.", []run{
			{command: "git init -q -b main . && git config user.name Ada && git config user.email ada@example.org && git remote add origin file:///srv/git/policies.git", quiet: true},
			{command: "muster init --fleet demo"},
			{command: "muster keys new secops-1", shows: match("added to trust.yaml")},
		}},
		{"Three real policies: package managers only for the updater, the certificate bundle for nobody's writing, and a record of who reads password hashes.", []run{
			{command: "rm policies/protect-shadow.yaml; cp /usr/share/doc/muster/examples/policies/*.yaml policies/; ls policies"},
			{command: "sed -n '/^spec/,$p' policies/package-managers.yaml"},
			{command: "muster lint policies"},
		}},
		{"Commit, and publish: one signed release on the branch muster/stable.", []run{
			{command: "git add . && git commit -qm 'Protect packages, certificates and password hashes' && git push -q origin main"},
			{command: "muster publish", shows: match("published release 1 ")},
		}},
	}
}

func joining() []step {
	return []step{
		{"The host joins: it pins the trust file by its digest, makes its own key, and starts the agent.", []run{
			{command: "muster join file:///srv/git/policies.git --status file:///srv/git/status.git --trust-sha256 $(sha256sum trust.yaml | cut -d' ' -f1) --host-id web-1 --no-start 2>&1", shows: match("joined fleet demo")},
			{command: "grep -q '^  interval' /etc/muster/musterd.yaml || sed -i 's|^source:|source:\\n  interval: 1s|' /etc/muster/musterd.yaml; cat /etc/muster/musterd.yaml"},
			{command: "setsid musterd >/var/log/musterd.log 2>&1 </dev/null & disown", quiet: true},
			{command: "muster status", shows: match("Enforced"), within: 3 * soon},
		}},
		{"The host's public key is enrolled by one more commit; reports of hosts that are not enrolled are shown apart.", []run{
			{command: "echo \"web-1 $(cut -d' ' -f1,2 /var/lib/muster/host.key.pub)\" >> policies/hosts.allowed_signers && git commit -qam 'Enrol web-1' && git push -q origin main && muster publish", shows: match("published release 2 ")},
		}},
	}
}

func obeying() []step {
	return []step{
		{"The forbidden thing is denied, for root too.", []run{
			{command: "apt-get --version", fails: true, shows: match("Permission denied")},
			{command: "echo evil >> /etc/ssl/certs/ca-certificates.crt", fails: true, shows: match("Permission denied")},
		}},
		{"The updater may: a rule with fromSource is more specific.", []run{
			{command: "printf '#!/bin/bash\\napt-get --version | head -n 1\\n' > /usr/local/sbin/updater && chmod 755 /usr/local/sbin/updater"},
			{command: "/usr/local/sbin/updater", shows: match("^apt ")},
		}},
		{"Reading the password hashes is permitted, and leaves a record. Every event names its policy.", []run{
			{command: "wc -l < /etc/shadow"},
			{command: "muster logs", shows: match(`(?s)package-managers.*certificate-bundle.*shadow-file`), within: soon},
		}},
		{"Why? muster explain runs the same decision.", []run{
			{command: "muster explain -- exec /usr/bin/apt-get", shows: match("package-managers")},
		}},
	}
}

func tampering() []step {
	return []step{
		{"Somebody removes a pin and edits the ruleset in the kernel by hand.", []run{
			{command: "find /sys/fs/bpf/muster -type f -name link_exec_check | head -n 1 | xargs rm -v", shows: match("removed")},
			{command: "bpftool map delete pinned $(find /sys/fs/bpf/muster -name map_slots) key 0 0 0 0 && echo the ruleset is out of its slot", shows: match("out of its slot")},
		}},
		{"The agent reads the kernel, not its own memory: both are reported as drift, and repaired.", []run{
			{command: "muster drift", shows: match(`(?s)^no drift.*\nrepaired:.* missing +link exec_check .* missing +host `), within: 2 * soon},
			{command: "muster status", shows: match("(?s)Enforced.*Repaired")},
			{command: "apt-get --version", fails: true, shows: match("Permission denied"), within: soon},
		}},
		{"The agent is killed. Enforcement lives in the kernel.", []run{
			{command: "pkill -KILL musterd; while pidof musterd >/dev/null; do :; done; muster status", fails: true},
			{command: "apt-get --version", fails: true, shows: match("Permission denied")},
			{command: "setsid musterd >>/var/log/musterd.log 2>&1 </dev/null & disown", quiet: true},
			{command: "muster status", shows: match("Enforced"), within: 2 * soon},
		}},
	}
}

func attacking() []step {
	return []step{
		{"Somebody with access to the Git hosting publishes a release signed by a key of his own.", []run{
			{command: "git clone -q file:///srv/git/policies.git /tmp/evil && cd /tmp/evil && git config user.name Eve && git config user.email eve@example.org && cp /root/policies/trust.yaml . && rm policies/package-managers.yaml && MUSTER_KEYS=/tmp/eve muster keys new eve && git commit -qam 'Trust me' && MUSTER_KEYS=/tmp/eve muster publish --key /tmp/eve/eve.key", shows: match("published")},
			{command: "muster status", shows: match("(?s)Refused.*too-few-signers"), within: soon},
			{command: "apt-get --version", fails: true, shows: match("Permission denied")},
		}},
		{"Then he rolls the branch back to the first release, which was signed by the right key.", []run{
			{command: "git fetch -q origin muster/stable && git push -q --force origin $(git rev-list --max-parents=0 FETCH_HEAD):refs/heads/muster/stable"},
			{command: "muster status", shows: match("(?s)Refused.*rollback"), within: soon},
		}},
	}
}

func fixing() []step {
	return []step{
		{"The hosting's hook plays CI: whatever is pushed to main is published.", []run{
			{command: "git push -q --force origin FETCH_HEAD~1:refs/heads/muster/stable"},
			{command: "printf '%s\\n' '#!/bin/sh' 'export MUSTER_PASSWORD=demo HOME=/root; unset GIT_DIR' 'cd /root/policies && muster publish' > /srv/git/policies.git/hooks/post-receive && chmod 755 /srv/git/policies.git/hooks/post-receive"},
		}},
		{"A bad policy goes out: nobody may read the file that monitoring takes the system's version from. It is fixed by one git push.", []run{
			{command: "sed -e 's/name: shadow-file/name: oops/; s#/etc/shadow#/etc/debian_version#; s/action: Audit/action: Block/' policies/shadow-file.yaml > policies/oops.yaml && git add . && git commit -qm 'Protect the version file' && git push -q origin main 2>&1", shows: match("published")},
			{command: "cat /etc/debian_version", fails: true, shows: match("Permission denied"), within: soon},
			{command: "git rm -q policies/oops.yaml && git commit -qm 'Take the rule on the version file back' && git push -q origin main 2>&1", shows: match("published")},
			{command: "head -n 1 /etc/debian_version", within: soon},
		}},
		{"What the fleet knows: the branch `status`, as the forge shows it, and muster roll.", []run{
			{command: "git --git-dir /srv/git/status.git show status:README.md", shows: match("web-1"), within: 6 * soon},
			{command: "muster roll --repo file:///srv/git/status.git", shows: match("web-1")},
		}},
	}
}
