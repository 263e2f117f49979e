// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// treeRows are trees that Git stores and a release cannot be.
func treeRows() []row {
	one := func(input, want string, entries func(w *world) []entry) row {
		return row{area: "Git tree", input: input, want: "Refused/" + want, plant: func(w *world) {
			w.push(w.bad(), entries(w)...)
			w.looked()
		}}
	}
	name := func(mode, name string) func(w *world) []entry {
		return func(w *world) []entry { return []entry{{mode, name, w.repo.blob([]byte("/etc/shadow"))}} }
	}
	return []row{
		one("a symlink", "path", name("120000", "a.yaml")),
		one("a device's mode", "path", name("020644", "a.yaml")),
		one("a submodule", "path", func(*world) []entry {
			return []entry{{"160000", "sub", plumbing.NewHash(strings.Repeat("1", 40))}}
		}),
		one("an entry ..", "path", name("100644", "..")),
		one("an entry .GIT", "path", name("100644", ".GIT")),
		one("an entry with a slash", "path", name("100644", "a/b")),
		one("a doubled entry", "path", func(w *world) []entry {
			blob := w.repo.blob([]byte("x"))
			return []entry{{"100644", "a", blob}, {"100644", "a", blob}}
		}),
		one("forty directories deep", "limits", func(w *world) []entry {
			return []entry{{"40000", "d", w.repo.tree(map[string][]byte{strings.Repeat("d/", 40) + "f": []byte("x")})}}
		}),
		one("a bomb: 40 MB in a small pack", "limits", func(w *world) []entry {
			return []entry{{"100644", "bomb", w.repo.blob(make([]byte, 40<<20))}}
		}),
	}
}

// repositoryRows break the branch, the objects and the repository itself.
func repositoryRows() []row {
	one := func(input, want string, spoil func(w *world)) row {
		return row{area: "Git repository", input: input, want: want, plant: func(w *world) {
			spoil(w)
			w.looked()
		}}
	}
	// lost is a bad release one of whose objects is then replaced.
	lost := func(input string, content string, which func(w *world, files map[string][]byte) plumbing.Hash) row {
		return one(input, "Unreachable/source", func(w *world) {
			files := w.bad()
			w.push(files)
			w.must(w.repo.write(w.repo.loose(which(w, files)), content))
		})
	}
	policy := func(w *world, files map[string][]byte) plumbing.Hash { return w.repo.blob(files["p.yaml"]) }
	return []row{
		one("the branch is gone", "Unreachable/no-release", func(w *world) { w.must(os.Remove(filepath.Join(w.repo.dir, string(branch)))) }),
		one("the branch holds no file", "Refused/no-release", func(w *world) { w.repo.point(w.repo.commit(w.repo.list(), w.tip)) }),
		one("force push: back to the release before", "Refused/rollback", func(w *world) { w.repo.point(w.older) }),
		one("force push: unrelated history, same sequence", "Refused/forked", func(w *world) {
			w.repo.point(w.repo.commit(w.repo.tree(w.release(w.wrong(), w.sequence)), plumbing.ZeroHash))
		}),
		one("force push where the trust requires ancestry", "Refused/history-rewritten", func(w *world) {
			w.must(os.WriteFile(w.path("trust.yaml"), []byte(w.goodTrust()+"requireAncestry: true\n"), 0o600))
			w.must(w.client.Reload(w.t.Context()))
			w.repo.point(w.repo.commit(w.repo.tree(w.bad()), plumbing.ZeroHash))
		}),
		one("the branch points at a blob", "Refused/malformed", func(w *world) { w.repo.point(w.repo.blob([]byte("no commit"))) }),
		one("the branch points at nothing", "Unreachable/source", func(w *world) {
			w.repo.point(plumbing.NewHash(strings.Repeat("1", 40)))
		}),
		one("the commit is garbage", "Unreachable/source", func(w *world) {
			w.repo.point(w.repo.object(plumbing.CommitObject, []byte("garbage")))
		}),
		one("the commit's tree is missing", "Unreachable/source", func(w *world) {
			w.repo.point(w.repo.commit(plumbing.NewHash(strings.Repeat("2", 40)), w.tip))
		}),
		one("a tree is garbage", "Unreachable/source", func(w *world) {
			w.push(w.bad(), entry{"40000", "t", w.repo.object(plumbing.TreeObject, []byte("100644 a\x00short"))})
		}),
		lost("an object is garbage", "garbage", policy),
		lost("an object is empty", "", policy),
		lost("the tree's object is garbage", "\x78\x9c\x00", func(w *world, files map[string][]byte) plumbing.Hash { return w.repo.tree(files) }),
		one("an object is missing", "Unreachable/source", func(w *world) {
			files := w.bad()
			w.push(files)
			w.must(os.Remove(filepath.Join(w.repo.dir, w.repo.loose(w.repo.blob(files["p.yaml"])))))
		}),
		one("an advertisement of 17 MB", "Unreachable/limits", func(w *world) { w.must(w.repo.manyRefs(w.tip)) }),
		one("the branch's file is garbage", "Unreachable/source", func(w *world) { w.must(w.repo.write(string(branch), "\x00\xffgarbage")) }),
		one("the repository is gone", "Unreachable/source", func(w *world) { w.must(os.Rename(w.repo.dir, w.repo.dir+awayExt)) }),
	}
}
