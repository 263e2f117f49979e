// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/inventory/host"
)

func TestGather(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		root string
		opts host.Options
		want inventory.Node
	}{
		{"debian", host.Options{Arch: "amd64", BPF: map[string]bool{"lsm": true}, LabelsFile: host.LabelsFile}, inventory.Node{
			Hostname: "web-1", MachineID: "0123456789abcdef0123456789abcdef",
			OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0-31-cloud-amd64",
			LSMs: []string{"lockdown", "capability", "yama", "apparmor", "bpf"}, BTF: true, CgroupV2: true,
			BPF: map[string]bool{"lsm": true},
			Labels: map[string]string{
				host.LabelHostname: "web-one", host.LabelKubeArmorHostname: "web-1", host.LabelOS: "linux", host.LabelArch: "amd64",
				"role": "web", "example.org/zone": "a", "empty": "",
			},
		}},
		{"bare", host.Options{Arch: "arm64", LabelsFile: host.LabelsFile}, inventory.Node{
			Kernel: "5.10.0",
			Labels: map[string]string{host.LabelOS: "linux", host.LabelArch: "arm64"},
		}},
	} {
		got, err := host.Gather(os.DirFS("testdata/"+tc.root), tc.opts)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tc.root, got, tc.want)
		}
	}
}

// TestGatherHere: on any Linux machine the kernel's own facts are there.
func TestGatherHere(t *testing.T) {
	t.Parallel()
	n, err := host.Gather(os.DirFS("/"), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if n.Hostname != want || n.Kernel == "" || n.Labels[host.LabelHostname] != want {
		t.Errorf("%+v", n)
	}
}

// TestOneLabelsFile: exactly the file that is named counts, and a name that leads nowhere is an error.
func TestOneLabelsFile(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{host.LabelsFile: {Data: []byte("role: built-in\nonly: built-in\n")}, "srv/labels": {Data: []byte("role: other\n")}}
	for file, want := range map[string]map[string]string{
		host.LabelsFile: {"role": "built-in", "only": "built-in"},
		"srv/labels":    {"role": "other"},
		"":              {},
	} {
		node, err := host.Gather(root, host.Options{LabelsFile: file, Arch: "amd64"})
		want[host.LabelOS], want[host.LabelArch] = "linux", "amd64"
		if err != nil || !maps.Equal(node.Labels, want) {
			t.Errorf("%q: %v, %v; want %v", file, node.Labels, err, want)
		}
	}
	if _, err := host.Gather(root, host.Options{LabelsFile: "srv/lables"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := host.Gather(fstest.MapFS{}, host.Options{LabelsFile: host.LabelsFile}); err != nil {
		t.Errorf("the usual file is not there: %v", err)
	}
}

func TestBadLabelsFailGather(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{host.LabelsFile: {Data: []byte("role: [web]\n")}}
	_, err := host.Gather(root, host.Options{LabelsFile: host.LabelsFile})
	if !errors.Is(err, host.ErrLabels) || !strings.Contains(err.Error(), "/etc/muster/labels.yaml:1:7") {
		t.Errorf("got %v", err)
	}
}

func TestParseLabels(t *testing.T) {
	t.Parallel()
	many := strings.Builder{}
	for i := range 300 {
		many.WriteString("l" + strings.Repeat("x", i%50) + string(rune('a'+i/50)) + ": v\n")
	}
	for _, tc := range []struct {
		text string
		want map[string]string
		err  string
	}{
		{"", nil, ""},
		{"# nothing\n", nil, ""},
		{"---\n", nil, ""},
		{"role: web\nexample.org/zone: a_b.c-d\nempty: \"\"\n", map[string]string{"role": "web", "example.org/zone": "a_b.c-d", "empty": ""}, ""},
		{"role: web\nrole: db\n", nil, "f:2:1: label \"role\" stands twice"},
		{"role: 1\n", nil, "f:1:7: 1 is not a string"},
		{"role: yes please\n", nil, "not a label value"},
		{"role: true\n", nil, "f:1:7: true is not a string"},
		{"role:\n", nil, "not a plain string"},
		{"role: [a]\n", nil, "f:1:7: not a plain string"},
		{"role: {a: b}\n", nil, "not a plain string"},
		{"- role\n", nil, "f:1:1: not a mapping"},
		{"role\n", nil, "not a mapping"},
		{"a: &x b\nc: *x\n", nil, "f:1:4: not a plain string"},
		{"<<: {a: b}\n", nil, "not a string"},
		{"? [a]\n: b\n", nil, "not a plain string"},
		{"a b: c\n", nil, "f:1:1: label \"a b\""},
		{"-a: c\n", nil, "begin and end"},
		{"Example.org/a: c\n", nil, "prefix"},
		{"/a: c\n", nil, "prefix"},
		{"a/b/c: d\n", nil, "name with other characters"},
		{strings.Repeat("a", 64) + ": d\n", nil, "more than 63"},
		{"a: " + strings.Repeat("b", 64) + "\n", nil, "not a label value"},
		{"a: b\n---\nc: d\n", nil, "more than one document"},
		{"a: b\n\tc: d\n", nil, "not YAML"},
		{"a: \"b\n", nil, "not YAML"},
		{many.String(), nil, "more than 256 labels"},
		{strings.Repeat("#", 70000), nil, "larger than"},
		{"a: \xff\n", nil, "not YAML"},
		{"a: !!binary aGk=\n", nil, "not a string"},
	} {
		got, err := host.ParseLabels("f", []byte(tc.text))
		switch {
		case tc.err == "" && (err != nil || !maps.Equal(got, tc.want)):
			t.Errorf("%.40q: got %v, %v", tc.text, got, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !errors.Is(err, host.ErrLabels)):
			t.Errorf("%.40q: got %v, %v, want an error with %q", tc.text, got, err, tc.err)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add([]byte("role: web\nexample.org/zone: a\n"))
	f.Add([]byte("a: &x b\nc: *x\n"))
	f.Add([]byte("{a: b, c: d}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		labels, err := host.ParseLabels("f", data)
		if err != nil && !errors.Is(err, host.ErrLabels) {
			t.Fatalf("unnamed error %v", err)
		}
		if err != nil && labels != nil {
			t.Fatal("labels beside an error")
		}
		for k, v := range labels {
			if k == "" || len(v) > 63 {
				t.Fatalf("label %q: %q", k, v)
			}
		}
	})
}

// links are the roots of merged-usr and of some loops.
func links() fstest.MapFS {
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	program := &fstest.MapFile{Mode: 0o755}
	return fstest.MapFS{
		"bin":                link("usr/bin"),
		"sbin":               link("usr/sbin"),
		"usr/bin/dash":       program,
		"usr/bin/sh":         link("dash"),
		"usr/bin/bash":       program,
		"usr/bin/login":      program,
		"usr/sbin/sshd":      program,
		"etc/alternatives/x": link("/bin/dash"),
		"usr/bin/x":          link("/etc/alternatives/x"),
		"loop/a":             link("b"),
		"loop/b":             link("a"),
		"up":                 link("usr/bin/../../etc"),
		"etc/passwd":         {Data: []byte("root:x:0:0:root:/root:/bin/bash\nuser:x:1:1::/:/bin/false\n")},
		"etc/shells":         {Data: []byte("# shells\n/bin/sh\n/usr/sbin/nologin\n/bin/missing\n")},
		"proc/self":          link("4711"),
		"proc/mounts":        link("self/mounts"),
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"/bin/sh":           "/usr/bin/dash",
		"/bin/":             "/usr/bin/",
		"/bin/not-yet":      "/usr/bin/not-yet",
		"/usr/bin/x":        "/usr/bin/dash",
		"/up/passwd":        "/etc/passwd",
		"/bin/../etc/":      "/usr/etc/", // the link first, then its parent, as the kernel does
		"//etc//passwd":     "/etc/passwd",
		"/proc/mounts":      "/proc/self/mounts",
		"/sbin/":            "/usr/sbin/",
		"/etc/alternatives": "", "/usr/bin/dash": "", "/": "", "/loop/a": "", "/loop/a/b": "", "/nowhere/at/all/": "",
		"/proc/self/status": "", "relative": "", "": "",
	}
	got := host.Resolve(links(), slices.Sorted(maps.Keys(want)))
	maps.DeleteFunc(want, func(_, v string) bool { return v == "" })
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// TestResolveTrustsOwners: a link that neither root nor this user made leads nowhere.
func TestResolveTrustsOwners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "tool")
	if err := os.Symlink("/usr/bin/env", link); err != nil {
		t.Fatal(err)
	}
	if got := host.Resolve(os.DirFS("/"), []string{link})[link]; !strings.HasSuffix(got, "/bin/env") {
		t.Errorf("our own link leads to %q", got)
	}
	if err := os.Lchown(link, 65534, 65534); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Logf("not tried: needs root: %v", err)
		return
	}
	if got := host.Resolve(os.DirFS("/"), []string{link, link + "/"}); len(got) != 0 {
		t.Errorf("a stranger's link was followed: %v", got)
	}
}

// TestLogins: PAM's configuration and sshd's are followed to what they name.
func TestLogins(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{}
	for file, text := range map[string]string{
		"usr/sbin/sshd":  "",
		"etc/pam.d/sshd": "@include common\n# auth required pam_comment.so\nsession optional pam_motd.so\n-session required pam_absent.so\n",
		"etc/pam.d/common": "auth [success=1 default=ignore] pam_unix.so nullok # why\nauth required /opt/pam/pam_own.so\n" +
			"account substack common\naccount include nowhere\n",
		"usr/lib/pam.d/su":                             "auth sufficient pam_rootok.so\n",
		"etc/pam.d/cups":                               "auth required pam_cups.so\n",
		"etc/ssh/sshd_config":                          "Include sshd_config.d/*.conf\nport 2222\nListenAddress [::]:2223\nListenAddress 10.0.0.1\n#Port 1\nInclude /etc/ssh/sshd_config\n",
		"etc/ssh/sshd_config.d/a.conf":                 "Port=22\nHostKey \"/etc/ssh/own_key\"\n",
		"etc/ssh/own_key":                              "",
		"etc/ssh/ssh_host_rsa_key":                     "",
		"opt/pam/pam_own.so":                           "",
		"lib/x86_64-linux-gnu/security/pam_unix.so":    "",
		"lib/x86_64-linux-gnu/security/pam_rootok.so":  "",
		"lib/x86_64-linux-gnu/security/pam_motd.so":    "",
		"lib/x86_64-linux-gnu/security/pam_absent.so":  "",
		"lib/x86_64-linux-gnu/security/pam_comment.so": "",
		"lib/x86_64-linux-gnu/security/pam_cups.so":    "",
	} {
		root[file] = &fstest.MapFile{Data: []byte(text)}
	}
	got := host.Programs(root)
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"modules", got.Modules, []string{"/lib/x86_64-linux-gnu/security/pam_rootok.so", "/lib/x86_64-linux-gnu/security/pam_unix.so", "/opt/pam/pam_own.so"}},
		{"configuration", got.LoginFiles, []string{"/etc/ssh/sshd_config", "/etc/pam.d/sshd", "/usr/lib/pam.d/su", "/etc/pam.d/common"}},
		{"sshd's files", got.SSHFiles, []string{"/etc/ssh/own_key", "/etc/ssh/sshd_config.d/a.conf", "/etc/ssh/sshd_config"}},
		{"ports", got.Ports, []string{"22", "2222", "2223"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, wanted %v", c.what, c.got, c.want)
		}
	}
}

func TestPrograms(t *testing.T) {
	t.Parallel()
	got := host.Programs(links())
	want := inventory.Programs{
		Shells: []string{"/usr/bin/dash", "/usr/bin/bash"},
		Logins: []string{"/usr/bin/login"},
		SSH:    []string{"/usr/sbin/sshd"},
		Files:  []string{"/etc/passwd"},
		Ports:  []string{"22"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if here := host.Programs(os.DirFS("/")); len(here.Shells) == 0 || len(here.Files) == 0 {
		t.Errorf("this machine: %+v", here)
	}
}
