// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// histories are channels that begin anew, by somebody who may push and even sign.
func histories() []attack {
	requiring := func(w *world) {
		v := w.firstTrust()
		v.Extra = "requireAncestry: true\n"
		w.trust = w.fleet.YAML(w.t, v)
	}
	row := func(name, want string, play func(w *world) map[string][]byte) attack {
		return attack{
			area: "History of the channel", name: name, want: want, setup: requiring, play: play,
			control: func(w *world) map[string][]byte { w.restored(); return w.good() },
		}
	}
	onTop := func(w *world) map[string][]byte {
		w.rewrite()
		w.push(w.bad())
		w.sync(false)
		return w.release(wrong(), w.sequence+3, w.sign...)
	}
	padded := row("behind a thousand commits, where ancestry is required", "ancestry-unknown", func(w *world) map[string][]byte {
		w.rewrite()
		w.pad(1100)
		return w.bad()
	})
	padded.only = "git"
	return []attack{
		row("rewritten, where ancestry is required", "history-rewritten", func(w *world) map[string][]byte { w.rewrite(); return w.bad() }),
		row("a second release on top of a refused history", "history-rewritten", onTop),
		row("the same, and the host is started again", "history-rewritten", func(w *world) map[string][]byte {
			files := onTop(w)
			w.halt()
			w.start()
			return files
		}),
		padded,
		{
			area: "History of the channel", name: "rewritten, where it is reported", want: "HistoryRewritten",
			play: func(w *world) map[string][]byte { w.rewrite(); return w.good() },
		},
	}
}

// rewrite takes the channel away, so that the next release begins it anew.
func (w *world) rewrite() {
	w.t.Helper()
	tip, err := w.channel.Refresh(w.t.Context())
	w.must(err)
	w.tip = string(tip)
	if w.transport == "git" {
		w.ref("update-ref", "-d", "refs/heads/muster/stable")
		return
	}
	w.registry(http.MethodDelete, "stable", nil)
}

// restored puts the channel back to where it was.
func (w *world) restored() {
	w.t.Helper()
	if w.transport == "git" {
		w.ref("update-ref", "refs/heads/muster/stable", w.tip)
		return
	}
	w.registry(http.MethodPut, "stable", w.registry(http.MethodGet, w.tip, nil))
}

// registry asks for one manifest over HTTP.
func (w *world) registry(method, reference string, body []byte) []byte {
	w.t.Helper()
	url := strings.TrimSuffix(strings.Replace(w.url, "oci://", "http://", 1), "/acme/policy:stable") + "/v2/acme/policy/manifests/" + reference
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, bytes.NewReader(body))
	w.must(err)
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	res, err := http.DefaultClient.Do(req)
	w.must(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	w.must(err)
	if res.StatusCode >= http.StatusBadRequest {
		w.t.Fatalf("%s %s: %s %s", method, url, res.Status, answer)
	}
	return answer
}

// pad begins a channel with n commits that hold nothing.
func (w *world) pad(n int) {
	w.t.Helper()
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "commit refs/heads/muster/stable\ncommitter x <x@example.com> %d +0000\ndata 1\nx\n", i+1)
	}
	w.gitIn(in.String(), "-C", w.repo, "fast-import", "--quiet")
}
