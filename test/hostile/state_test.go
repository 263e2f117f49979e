// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The agent's own files. Every byte of them is cut in test/agent (TestStateTornAtEveryByte) and in bundles
// (where no kernel is needed); here a sample of the cuts meets a real start over a real kernel.

// state is a file of the state directory; "*" stands for the newest cached release.
func (w *world) state(name string) string {
	w.t.Helper()
	if name != "*" {
		return w.path("state/" + name)
	}
	names, err := filepath.Glob(w.path("state/cache/enforce-*.release"))
	w.must(err)
	if len(names) == 0 {
		w.t.Fatal("nothing is cached")
	}
	return names[len(names)-1]
}

// lostAndHeld is what a start on damaged state must say: the damage, and that an older release stays refused.
const lostAndHeld = "StateLost + Refused/rollback"

// restarted kills the agent, damages what it left, and starts it while the source offers the release before.
func restarted(area, input, want string, damage func(w *world)) row {
	return row{area: area, input: input, want: want, plant: func(w *world) {
		w.kill()
		w.repo.point(w.older)
		damage(w)
		w.run()
	}}
}

// cut is one point where a file ends: so many bytes after the beginning, or before the end if negative.
func cut(name string, n int, input, want string) row {
	return restarted("State files, at a start", input, want, func(w *world) {
		path := w.state(name)
		content, err := os.ReadFile(path)
		w.must(err)
		if n < 0 {
			n += len(content)
		}
		w.must(os.Truncate(path, int64(n)))
	})
}

// header is a cut at the end of the first line, or beside it.
func header(name string, beside int, input string) row {
	return restarted("State files, at a start", input, lostAndHeld, func(w *world) {
		path := w.state(name)
		content, err := os.ReadFile(path)
		w.must(err)
		w.must(os.Truncate(path, int64(bytes.IndexByte(content, '\n')+beside)))
	})
}

func stateRows() []row {
	out := []row{
		header("seen", 0, "marks: cut before the header's newline"),
		header("seen", 1, "marks: cut after the header"),
		cut("seen", -1, "marks: cut by the last byte", lostAndHeld),
		header("*", 0, "cached release: cut before the header's newline"),
		header("*", 1, "cached release: cut after the header"),
		cut("*", -1, "cached release: cut by the last byte", lostAndHeld),
	}
	for _, n := range []int{0, 1, 14, 40} {
		out = append(out, cut("seen", n, fmt.Sprintf("marks: cut at byte %d", n), lostAndHeld))
	}
	for _, n := range []int{0, 1, 20} {
		out = append(out, cut("*", n, fmt.Sprintf("cached release: cut at byte %d", n), lostAndHeld))
	}
	spoilt := func(input, want string, damage func(w *world) error) row {
		return restarted("State files, at a start", input, want, func(w *world) { w.must(damage(w)) })
	}
	garbage := []byte("\x00\xff garbage\n")
	return append(out,
		cut("seen.old", 0, "the marks before: empty", "Refused/rollback"),
		spoilt("marks: garbage", lostAndHeld, func(w *world) error { return os.WriteFile(w.state("seen"), garbage, 0o600) }),
		spoilt("marks: missing, both generations", lostAndHeld, func(w *world) error {
			return os.Remove(w.state("seen"))
		}),
		spoilt("marks: a directory", lostAndHeld, func(w *world) error {
			if err := os.Remove(w.state("seen")); err != nil {
				return err
			}
			return os.Mkdir(w.state("seen"), 0o700)
		}),
		inLab(spoilt("marks: of mode 0", "Refused/rollback", func(w *world) error { return os.Chmod(w.state("seen"), 0) })),
		spoilt("cached release: missing", lostAndHeld, func(w *world) error { return os.Remove(w.state("*")) }),
		spoilt("every cached release: missing", lostAndHeld, func(w *world) error { return os.RemoveAll(w.path("state/cache")) }),
		spoilt("journal: garbage", "StateLost", func(w *world) error { return os.WriteFile(w.state("journal"), garbage, 0o600) }),
		inLab(spoilt("files kept for the next boot: garbage", "StateLost", func(w *world) error { return os.WriteFile(w.state("kept"), garbage, 0o600) })),
		spoilt("suspension: garbage", "StateLost", func(w *world) error { return os.WriteFile(w.state("suspended"), garbage, 0o600) }),
		spoilt("successions of the trust file: garbage", "StateLost", func(w *world) error { return os.WriteFile(w.state("trust"), garbage, 0o600) }),
		spoilt("successions of the trust file: empty", "StateLost", func(w *world) error { return os.WriteFile(w.state("trust"), nil, 0o600) }),
		spoilt("successions of the trust file: cut in the header", "StateLost", func(w *world) error {
			return os.WriteFile(w.state("trust"), []byte("muster-trust"), 0o600)
		}),
		row{area: "State files, at a start", input: "state directory not writable", want: "Trouble/state", plant: func(w *world) {
			w.kill()
			w.run()
			w.must(os.Chmod(w.path("state"), 0o500))
			w.must(os.Chmod(w.path("state/cache"), 0o500))
			w.push(w.bad())
			w.looked()
		}},
	)
}

// startRows keep the agent from starting: it says why, and the kernel goes on.
func startRows() []row {
	one := func(input, want string, damage func(w *world) error) row {
		return row{area: "At a start", input: input, want: "exit: " + want, plant: func(w *world) {
			w.kill()
			w.must(damage(w))
			w.launch()
			if err := <-w.ended; err == nil {
				w.t.Error("it ended as if all was well")
			}
			w.agent = nil
		}}
	}
	replace := func(name, content string) func(w *world) error {
		return func(w *world) error { return os.WriteFile(w.path(name), []byte(content), 0o600) }
	}
	return []row{
		one("musterd.yaml: an unknown key", "sauce", func(w *world) error { return replace("musterd.yaml", w.goodConfig()+"sauce: {}\n")(w) }),
		one("trust.yaml: garbage", "trust: trust.yaml is not usable", replace("trust.yaml", "\x00\xff{")),
		one("trust.yaml: missing", "trust.yaml: no such file or directory", func(w *world) error { return os.Remove(w.path("trust.yaml")) }),
		one("trust.yaml: writable by others", "could be changed by others", func(w *world) error { return os.Chmod(w.path("trust.yaml"), 0o606) }),
		one("musterd.yaml: writable by a group", "could be changed by others", func(w *world) error { return os.Chmod(w.path("musterd.yaml"), 0o660) }),
		inLab(one("musterd.yaml: of another user", "could be changed by others", func(w *world) error { return os.Chown(w.path("musterd.yaml"), 65534, -1) })),
		inLab(one("host.key: of another user", "could be changed by others", func(w *world) error { return os.Chown(w.path("state/host.key"), 65534, -1) })),
		one("labels.yaml: garbage", "labels.yaml: not YAML", replace("labels.yaml", "\x00\xff{")),
		one("host.key: garbage", "host key: ", replace("state/host.key", "garbage")),
		one("host.key: readable by others", "is readable by others", func(w *world) error { return os.Chmod(w.path("state/host.key"), 0o644) }),
		one("the cache is a file", "cache: ", func(w *world) error {
			if err := os.RemoveAll(w.path("state/cache")); err != nil {
				return err
			}
			return replace("state/cache", strings.Repeat("x", 10))(w)
		}),
	}
}
