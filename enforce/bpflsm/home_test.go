// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// namespaced carries out the operations of a probe that arrange a mount namespace, and "apart WHO EXE SCRIPT": a script
// (its lines joined by commas, its words by semicolons) by another executable in a mount namespace of its own, made by
// root or, with a user namespace, by user 1001.
func namespaced(f []string) (known bool, err error) {
	switch f[0] {
	case "bind":
		err = unix.Mount(f[1], f[2], "", unix.MS_BIND|unix.MS_REC, "")
	case "tmpfs":
		err = unix.Mount("tmpfs", f[1], "tmpfs", 0, "mode=0777")
	case "stack": // two directories, read-only
		err = unix.Mount("overlay", f[3], "overlay", 0, "lowerdir="+f[1]+":"+f[2])
	case "upper": // a directory, the one above it that takes the changes, and its work
		err = unix.Mount("overlay", f[4], "overlay", 0, "lowerdir="+f[1]+",upperdir="+f[2]+",workdir="+f[3])
	case "private":
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	case "copy":
		var content []byte
		if content, err = os.ReadFile(f[1]); err == nil {
			err = os.WriteFile(f[2], content, 0o755)
		}
	case "detached": // opens a file of a kind of filesystem that is mounted nowhere
		err = readDetached(f[1], f[2])
	case "detached-tree":
		err = readDetachedTree(f[1], f[2])
	case "apart":
		return true, apartAs(f[1], f[2], strings.NewReplacer(";", " ", ",", "\n").Replace(f[3]))
	default:
		return false, nil
	}
	return true, err
}

func apartAs(who, exe, script string) error {
	c := exec.Command(exe)
	c.Env = []string{probeVariable + "=private\n" + script}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if who == "user" {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		one := []syscall.SysProcIDMap{{HostID: 1001, Size: 1}}
		c.SysProcAttr.UidMappings, c.SysProcAttr.GidMappings = one, one
		c.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		return unprepared(string(out), err)
	}
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	return errors.New(strings.Join(answers[1:], ","))
}

func readDetached(kind, path string) error {
	fs, err := unix.Fsopen(kind, 0)
	if err != nil {
		return unprepared("fsopen", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return unprepared("fsconfig", err)
	}
	mounted, err := unix.Fsmount(fs, 0, 0)
	if err != nil {
		return unprepared("fsmount", err)
	}
	return fdClosed(unix.Openat(mounted, path, unix.O_RDONLY, 0))
}

func readDetachedTree(root, path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE)
	if err != nil {
		return unprepared("open_tree", err)
	}
	return fdClosed(unix.Openat(tree, path, unix.O_RDONLY, 0))
}

// inApart is the operation that runs a script in a namespace of its own.
func inApart(who, exe string, script ...string) string {
	return "apart " + who + " " + exe + " " + strings.ReplaceAll(strings.Join(script, ","), " ", ";")
}

// namespaceWorld makes a directory that any user can work in.
func namespaceWorld(t *testing.T) string {
	t.Helper()
	d := publicDir(t)
	for _, path := range []string{"/dir/secret", "/dir/sub/secret", "/keys/a.key", "/ok/f", "/ok/sub/f", "/else/x", "/bin/x", "/mine/f"} {
		write(t, d+path, "x", 0o666)
		if err := os.Chmod(d+path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"", "/dir", "/dir/sub", "/keys", "/ok", "/ok/sub", "/else", "/bin", "/mine"} {
		if err := os.Chmod(d+path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// publicDir makes a directory that any user can reach and change, on a filesystem that keeps extended attributes.
func publicDir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("/var/tmp", "muster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	if err := os.Chmod(d, 0o777); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestBlocksInNamespace goes round Blocks of a directory and of a pattern by mounts of a namespace of its own.
func TestBlocksInNamespace(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	self := copySelf(t, d+"/probe")
	directory := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/dir/")
	directory.Rule.Object.Recursive = true
	ruleset := rules(enforce.ModeEnforce, enforce.PostureAudit, directory,
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPattern, d+"/keys/*.key"))
	publish := enforce.StepPublish{Ruleset: ruleset}
	scripts := []struct {
		script         []string
		free, enforced string
	}{
		{[]string{"bind D/dir D/else", "read D/else/secret", "list D/else", "read D/else/sub/secret"}, "ok,ok,ok,ok", "ok,EACCES,EACCES,EACCES"},
		{[]string{"bind D/dir/secret D/else/x", "read D/else/x", "write D/else/x"}, "ok,ok,ok", "ok,EACCES,EACCES"},
		{[]string{"bind D/keys D/else", "read D/else/a.key", "rename D/else/a.key D/else/b", "rename D/else/b D/else/a.key"}, "ok,ok,ok,ok", "ok,EACCES,EACCES,ENOENT"},
		{[]string{"bind / D/else", "read D/elseD/dir/secret", "chroot D/else", "read D/dir/secret", "create D/dir/new", "unlink D/dir/new"}, "ok,ok,ok,ok,ok,ok", "ok,EACCES,ok,EACCES,EACCES,ENOENT"},
		{[]string{"bind D/dir D/else", "mkdir D/else/m", "rmdir D/else/m"}, "ok,ok,ok", "ok,EACCES,ENOENT"},
		{[]string{"bind D/ok D/dir", "read D/dir/f"}, "ok,ok", "ok,EACCES"}, // the name that is seen counts as well
		{[]string{"bind D/ok D/else", "read D/else/f", "list D/else", "create D/else/n", "rename D/else/n D/else/m", "unlink D/else/m"}, "ok,ok,ok,ok,ok,ok", "ok,ok,ok,ok,ok,ok"},
		{[]string{"tmpfs D/else", "create D/else/n", "read D/else/n", "copy D/probe D/else/p", "run D/else/p stat /"}, "ok,ok,ok,ok,ok", "ok,ok,ok,ok,ok"},
	}
	for _, who := range []string{"root", "user"} {
		var operations, free, enforced []string
		for _, s := range scripts {
			operations = append(operations, strings.ReplaceAll(inApart(who, self, s.script...), "D/", d+"/"))
			free, enforced = append(free, s.free), append(enforced, s.enforced)
		}
		want(t, try(t, operations...), free...)
		g.apply(t, publish)
		want(t, try(t, operations...), enforced...)
		if events := g.seen(t); len(events) < 10 {
			t.Errorf("%d events: %q", len(events), events)
		}
		g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	}
}

// TestSourcesInNamespace shows another program under the name of one that a rule allows something.
func TestSourcesInNamespace(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	updater, evil := copySelf(t, d+"/bin/updater"), copySelf(t, d+"/evil")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/mine/f"),
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, d+"/mine/f", updater),
		rule(policies.ClassFile, policies.ActionBlock, policies.ObjectPath, d+"/ok/f", evil))})
	read := "run " + updater + " read " + d + "/mine/f"
	for _, who := range []string{"root", "user"} {
		want(t, try(t,
			inApart(who, evil, read),
			inApart(who, evil, "bind "+evil+" "+updater, read),
			inApart(who, evil, "tmpfs "+d+"/bin", "copy "+evil+" "+updater, read),
			// A Block follows the program behind the name.
			inApart(who, updater, "bind "+evil+" "+updater, "run "+updater+" read "+d+"/ok/f"),
			inApart(who, updater, "run "+updater+" read "+d+"/ok/f"),
		), "ok", "ok,EACCES", "ok,ok,EACCES", "ok,EACCES", "ok")
	}
}

// TestAllowListInNamespace keeps to an allow-list a program that moves what it may not have below a name that it may.
// Services with directories of their own are let alone.
func TestAllowListInNamespace(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	app := copySelf(t, d+"/app")
	ok := rule(policies.ClassFile, policies.ActionAllow, policies.ObjectDirectory, d+"/ok/", app)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock, ok)})
	want(t, try(t,
		inApart("user", app, "read "+d+"/ok/f", "read "+d+"/mine/f", "bind "+d+"/mine "+d+"/ok", "read "+d+"/ok/f"),
		inApart("user", app, "tmpfs "+d+"/ok", "create "+d+"/ok/n", "read "+d+"/ok/n"),
		// As systemd does for PrivateTmp=.
		inApart("root", app, "bind "+d+"/mine "+d+"/ok", "read "+d+"/ok/f", "create "+d+"/ok/n", "unlink "+d+"/ok/n", "read "+d+"/else/x"),
	), "ok,EACCES,ok,EACCES", "ok,ok,ok", "ok,ok,ok,ok,EACCES")
}

// TestMarksInNamespace shows a file that nobody protects under a protected name: that must not protect it everywhere.
func TestMarksInNamespace(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	self := copySelf(t, d+"/probe")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/mine/f"), block(d+"/mine/new"))})
	for _, who := range []string{"root", "user"} {
		want(t, try(t,
			inApart(who, self, "bind "+d+"/ok/f "+d+"/mine/f", "read "+d+"/mine/f"),
			"read "+d+"/ok/f", "write "+d+"/ok/f",
			// The protected file behind another name.
			inApart(who, self, "bind "+d+"/mine/f "+d+"/ok/f", "read "+d+"/ok/f"),
		), "ok,EACCES", "ok", "ok", "ok,EACCES")
	}
}

// TestDetachedFilesystems opens files of filesystems that are mounted nowhere, as container runtimes do with procfs.
func TestDetachedFilesystems(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block("/proc/uptime"), block("/sys/kernel/profiling"))})
	want(t, try(t, "detached proc version", "detached proc self/status", "detached proc .", "detached proc uptime",
		"detached sysfs kernel/mm", "detached sysfs .", "detached-tree "+d+"/ok f", "detached tmpfs ."),
		"ok", "ok", "ok", "EACCES", "ok", "ok", "EACCES", "EACCES")
	g.apply(t, enforce.StepWithdraw{Subject: enforce.Host})
	want(t, try(t, "detached proc uptime", "detached-tree "+d+"/ok f", "detached tmpfs ."), "ok", "ok", "ok")
}

// TestStacksInNamespace looks at blocked files through a filesystem that is stacked upon their directory. The file below
// is known by its inode and by the host's name.
func TestStacksInNamespace(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	self := copySelf(t, d+"/probe")
	copySelf(t, d+"/bin/tool")
	directory := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/dir/")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, block(d+"/mine/f"), blockRun(d+"/bin/tool"), directory)})
	stack := func(who, dir, operation string) string {
		return inApart(who, self, "stack "+d+dir+" "+d+"/keys "+d+"/else", operation)
	}
	for _, who := range []string{"root", "user"} {
		want(t, try(t,
			stack(who, "/ok", "read "+d+"/else/f"),
			stack(who, "/mine", "read "+d+"/else/f"),
			stack(who, "/bin", "run "+d+"/else/tool stat /"),
			stack(who, "/bin", "read "+d+"/else/tool"),
			stack(who, "/bin", "map "+d+"/else/tool"),
			stack(who, "/bin", "map "+d+"/else/x"),
			stack(who, "/dir", "read "+d+"/else/secret"),
			stack(who, "/dir", "list "+d+"/else"),
			stack(who, "/ok", "list "+d+"/else"),
		), "ok,ok", "ok,EACCES", "ok,EACCES", "ok,ok", "ok,EACCES", "ok,ok", "ok,EACCES", "ok,EACCES", "ok,ok")
	}
}

// TestUpperLayer changes a read-only directory by what is changed in an overlay that has it as its upper layer. What the stack
// shows has names in no rule; the host's name of what changes below is in one.
func TestUpperLayer(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	self := copySelf(t, d+"/probe")
	byAll := []string{
		"create ELSE/new", "mkdir ELSE/newdir", "symlink / ELSE/newlink", "link ELSE/first ELSE/newname", "mknod ELSE/newpipe",
		"rename ELSE/first ELSE/renamed", "unlink ELSE/second", "rmdir ELSE/empty",
	}
	byRoot := []string{"chmod ELSE/first", "chown ELSE/first", "truncate ELSE/first", "write ELSE/x"} // the last makes a copy of that below
	var scripts, answers []string
	change := func(who, dir, operation, answer string) {
		number := fmt.Sprintf("/%d", len(scripts))
		layers := upperLayers(t, d+dir+number, d+"/ok"+number)
		operation = strings.ReplaceAll(operation, "ELSE", d+"/else")
		scripts = append(scripts, inApart(who, self, "upper "+d+"/bin "+layers+" "+d+"/else", operation))
		answers = append(answers, "ok,"+answer)
	}
	for _, who := range []string{"root", "user"} {
		operations := byAll
		if who == "root" {
			operations = slices.Concat(byAll, byRoot)
		}
		for _, operation := range operations {
			change(who, "/keys", operation, "ok")
			change(who, "/dir", operation, "EACCES")
		}
	}
	directory := rule(policies.ClassFile, policies.ActionBlock, policies.ObjectDirectory, d+"/dir/")
	directory.Rule.Object.Recursive, directory.Rule.ReadOnly = true, true
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureAudit, directory)})
	want(t, try(t, scripts...), answers...)
}

// upperLayers makes an upper layer with something in it and a work directory for an overlay, both for everybody.
func upperLayers(t *testing.T, upper, work string) string {
	t.Helper()
	for _, dir := range []string{upper, upper + "/empty", work} {
		if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/first", "/second"} {
		write(t, upper+name, "x", 0o666)
		if err := os.Chmod(upper+name, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return upper + " " + work
}

// TestStackAllowList lets a service that root gave a stack of its own have what it sees, whatever the host calls it.
func TestStackAllowList(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	d := namespaceWorld(t)
	app := copySelf(t, d+"/app")
	g.apply(t, enforce.StepPublish{Ruleset: rules(enforce.ModeEnforce, enforce.PostureBlock,
		rule(policies.ClassFile, policies.ActionAllow, policies.ObjectDirectory, d+"/else/", app))})
	look := []string{"stack " + d + "/ok " + d + "/keys " + d + "/else", "read " + d + "/else/f", "list " + d + "/else"}
	want(t, try(t, inApart("root", app, look...), inApart("user", app, look...)), "ok,ok,ok", "ok,EACCES,EACCES")
}
