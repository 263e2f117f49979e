// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bpf"
)

// TestCallTable compares calls.tbl with golang.org/x/sys/unix, which is kept: every new call of a kernel comes from
// there.
func TestCallTable(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	define := regexp.MustCompile(`(?m)^\tSYS_(\w+)\s*=\s*(\d+)`)
	for _, source := range []struct{ abi, file string }{{"amd64", "zsysnum_linux_amd64.go"}, {"i386", "zsysnum_linux_386.go"}} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), source.file))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{}
		for _, m := range define.FindAllStringSubmatch(string(text), -1) {
			want[strings.ToLower(m[1])], _ = strconv.Atoi(m[2])
		}
		if len(want) < 350 {
			t.Fatalf("%s: %d calls", source.file, len(want))
		}
		have := 0
		for _, c := range callNumbers() {
			if c.abi != source.abi {
				continue
			}
			have++
			if n, ok := want[c.name]; !ok || n != c.index%int(bpf.MusterLimitCALLS_I386) {
				t.Errorf("%s %s is %d here, %d there", c.abi, c.name, c.index, n)
			}
		}
		if have != len(want) {
			t.Errorf("%s: %d calls here, %d there", source.abi, have, len(want))
		}
	}
	lines := strings.Count(callTable, "\n") - strings.Count(callTable, "#")
	if lines != len(callNumbers()) || len(callNames()) != lines {
		t.Errorf("%d lines, %d calls, %d numbers", lines, len(callNumbers()), len(callNames()))
	}
	for name := range callPaths() {
		known := false
		for _, c := range callNumbers() {
			known = known || c.name == name
		}
		if !known {
			t.Errorf("%s takes a path and is no call", name)
		}
	}
}

// TestCallsIn reads symbols as a kernel shows them.
func TestCallsIn(t *testing.T) {
	t.Parallel()
	known, err := callsIn(strings.NewReader("ffffffff81000000 T __x64_sys_unlinkat\n0000000000000000 T __x64_sys_newstat\n" +
		"ffffffff81000010 W __x64_sys_mseal\nffffffff81000020 T __ia32_compat_sys_openat\nffffffff81000030 b rename_lock\nx\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"unlinkat": true, "stat": true, "mseal": false, "rmdir": false, "socketcall": true, "nothing": false} {
		if known[name] != want {
			t.Errorf("%s: %v", name, known[name])
		}
	}
	hidden, err := callsIn(strings.NewReader(""))
	if err != nil || !hidden["mseal"] || !hidden["socketcall"] {
		t.Errorf("hidden symbols: %v", err)
	}
}

func TestCallText(t *testing.T) {
	t.Parallel()
	for number, want := range map[uint64]string{
		263: "unlinkat syscall=SYS_UNLINKAT", 1024 + 301: "unlinkat syscall=SYS_UNLINKAT abi=i386",
		0x40000000 + 520: "execve syscall=SYS_EXECVE abi=x32", 1000: "1000 syscall=SYS_1000",
	} {
		if name, data := callText(number); name+" "+data != want {
			t.Errorf("%d: %s %s", number, name, data)
		}
	}
}
