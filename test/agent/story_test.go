// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
)

// TestStories runs testdata/*.txtar. The comment of each archive is its script; its files are the releases,
// one directory each. See (*teller).verbs for the words.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			(&teller{world: newWorld(t), archive: archive}).tell()
		})
	}
}

type teller struct {
	*world
	archive *txtar.Archive
	last    *control.SyncResult
	// tips are the channel's tips, so that a story can push an old one again.
	tips []string
}

func (s *teller) tell() {
	for i, line := range strings.Split(string(s.archive.Comment), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		s.t.Logf("%d: %s", i+1, line)
		verb, known := s.verbs()[words[0]]
		if !known {
			s.t.Fatalf("line %d: %q is no verb", i+1, words[0])
		}
		if err := verb(words[1:]); err != nil {
			s.t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
	}
}

func (s *teller) verbs() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"threshold": func(a []string) (err error) { s.enforce, err = strconv.Atoi(a[0]); return err },
		"start":     func([]string) error { s.start(); return nil },
		"stop":      func([]string) error { s.halt(); return nil },
		"restart":   func([]string) error { s.halt(); s.start(); return nil },
		"tamper":    func(a []string) error { return s.kernel.tamper(a[0]) },
		"publish":   s.doPublish,
		"sync":      s.doSync,
		"state":     s.doState,
		"rules":     s.doRules,
		"condition": s.doCondition,
		"never":     s.doNever,
		"repaired":  s.doRepaired,
		"fail":      s.doFail,
		"blind":     func(a []string) error { s.kernel.set(func() { s.kernel.blind = a[0] == "on" }); return nil },
		"mode":      s.doMode,
		"revoke":    s.doRevoke,
		"push":      s.doPush,
		"truncate":  s.doTruncate,
		"suspend":   s.doSuspend,
		"resume":    func([]string) error { return s.loop.Resume(s.t.Context()) },
		"offline":   s.doOffline,
		"label":     func(a []string) error { s.mu.Lock(); defer s.mu.Unlock(); s.labels[a[0]] = a[1]; return nil },
		"reload":    func([]string) error { return s.loop.Reload(s.t.Context()) },
		"plan":      s.doPlan,
		"journal":   s.doJournal,
	}
}

// doPublish: publish DIR [by=NAME,NAME] [ack] [again]: again signs the same release anew.
func (s *teller) doPublish(args []string) error {
	files := map[string][]byte{}
	for _, f := range s.archive.Files {
		if name, ok := strings.CutPrefix(f.Name, args[0]+"/"); ok {
			files[name] = f.Data
		}
	}
	by := []string{"alice"}
	ack := false
	sequence := s.sequence + 1
	for _, word := range args[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "by":
			by = strings.Split(value, ",")
		case "ack":
			ack = true
		case "again":
			sequence--
		default:
			return fmt.Errorf("word %q", word)
		}
	}
	s.publish(files, by, sequence, ack)
	s.tips = append(s.tips, s.tip())
	return nil
}

func (s *teller) tip() string { return s.git("-C", s.repo(), "rev-parse", "muster/stable") }

// doPush: push NUMBER makes an earlier tip the channel's tip; push garbage, push unsigned, push altered make
// one that no publisher would.
func (s *teller) doPush(args []string) error {
	if n, err := strconv.Atoi(args[0]); err == nil {
		s.git("-C", s.repo(), "update-ref", "refs/heads/muster/stable", s.tips[n-1])
		return nil
	}
	work := filepath.Join(s.t.TempDir(), "work")
	s.git("clone", "-q", "-b", "muster/stable", s.repo(), work)
	change := map[string]func() error{
		"unsigned": func() error { return os.RemoveAll(filepath.Join(work, ".muster/signatures")) },
		"altered": func() error {
			return os.WriteFile(filepath.Join(work, "p.yaml"), []byte("# not what was signed\n"), 0o600)
		},
		"torn":    func() error { return os.Truncate(filepath.Join(work, ".muster/release.json"), 40) },
		"empty":   func() error { return os.RemoveAll(filepath.Join(work, ".muster")) },
		"symlink": func() error { return os.Symlink("/etc/shadow", filepath.Join(work, "extra.yaml")) },
	}[args[0]]
	if change == nil {
		return fmt.Errorf("push what: %q", args[0])
	}
	if err := change(); err != nil {
		return err
	}
	s.git("-C", work, "add", "-A")
	s.git("-C", work, "-c", "user.name=m", "-c", "user.email=m@example.com", "commit", "-q", "--allow-empty", "-m", args[0])
	s.git("-C", work, "push", "-q", "-f", "origin", "HEAD:muster/stable")
	return nil
}

// doSync: sync OUTCOME [NAME]: the outcome of a look at the source, and the name of what was wrong.
func (s *teller) doSync(args []string) error {
	s.last = s.sync()
	name := ""
	if s.last.Problem != nil {
		name = s.last.Problem.Name
	}
	if string(s.last.Outcome) != args[0] || (len(args) > 1 && name != args[1]) {
		return fmt.Errorf("got %s %s (%+v)", s.last.Outcome, name, s.last.Problem)
	}
	return nil
}

func (s *teller) doState(args []string) error {
	s.await("state "+args[0], func() bool { return s.status().Report.State == fleet.HostState(args[0]) })
	return nil
}

// doRules: rules N: the kernel holds a whole ruleset of N rules for the host; -1 none.
func (s *teller) doRules(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	s.await("rules "+args[0], func() bool { return s.kernel.hostRules() == n })
	return nil
}

// doCondition: condition TYPE [ERROR]; condition none TYPE.
func (s *teller) doCondition(args []string) error {
	has := func(kind, name string) bool {
		return slices.ContainsFunc(s.status().Report.Conditions, func(c fleet.Condition) bool {
			return c.Type == kind && (name == "" || c.Error == name)
		})
	}
	if args[0] == "none" {
		s.await("no condition "+args[1], func() bool { return !has(args[1], "") })
		return nil
	}
	name := ""
	if len(args) > 1 {
		name = args[1]
	}
	s.await("condition "+strings.Join(args, " "), func() bool { return has(args[0], name) })
	return nil
}

// doNever: never WORD: no step with this word was ever carried out.
func (s *teller) doNever(args []string) error {
	var found string
	s.kernel.set(func() {
		for _, step := range s.kernel.history {
			if strings.Contains(step, args[0]) {
				found = step
			}
		}
	})
	if found != "" {
		return fmt.Errorf("it was: %s", found)
	}
	return nil
}

func (s *teller) doRepaired(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	s.await("repaired "+args[0], func() bool { return len(s.status().Repairs) >= n })
	if got := len(s.status().Repairs); got != n {
		return fmt.Errorf("%d repairs", got)
	}
	return nil
}

// doFail: fail KIND N: the next N steps of this kind fail.
func (s *teller) doFail(args []string) error {
	n, err := strconv.Atoi(args[1])
	s.kernel.set(func() { s.kernel.fail[args[0]] = n })
	return err
}

func (s *teller) doMode(args []string) error {
	s.cfg.Mode = enforce.Mode(args[0])
	return s.loop.Reload(s.t.Context())
}

// doRevoke revokes the release that is in force.
func (s *teller) doRevoke([]string) error {
	s.revoked = append(s.revoked, strings.TrimPrefix(s.last.Release.Digest, "sha256:"))
	return nil
}

// doTruncate: truncate FILE N: a file of the state directory ends after N bytes; a glob is fine.
func (s *teller) doTruncate(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(s.cfg.StateDir, args[0]))
	if err != nil || len(names) == 0 {
		return fmt.Errorf("no file %s: %w", args[0], err)
	}
	for _, name := range names {
		if err := os.Truncate(name, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *teller) doSuspend(args []string) error {
	lasting, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	_, err = s.loop.Suspend(s.t.Context(), control.SuspendRequest{Reason: "story", Until: time.Now().Add(lasting)})
	return err
}

// doOffline: offline on takes the repository away.
func (s *teller) doOffline(args []string) error {
	if args[0] == "on" {
		return os.Rename(s.repo(), s.repo()+".away")
	}
	return os.Rename(s.repo()+".away", s.repo())
}

// doPlan: plan STEPS CHANGES [AUDIT-CHANGES].
func (s *teller) doPlan(args []string) error {
	plan, err := s.loop.Plan(s.t.Context())
	if err != nil {
		return err
	}
	got := []string{strconv.Itoa(len(plan.Steps)), strconv.Itoa(len(plan.Changes))}
	if plan.Audit != nil {
		got = append(got, strconv.Itoa(len(plan.Audit.Changes)))
	}
	if !slices.Equal(got, args) {
		return fmt.Errorf("got %v: %+v", got, plan)
	}
	return nil
}

// doJournal: journal there | gone.
func (s *teller) doJournal(args []string) error {
	_, err := os.Stat(filepath.Join(s.cfg.StateDir, "journal"))
	if (err == nil) != (args[0] == "there") {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
