// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gitObject is a signed commit or annotated tag, taken apart as git does it, and stricter: what two readers could
// understand differently is an error.
type gitObject struct {
	kind      string // commit or tag
	signed    []byte // what the signature is over
	signature []byte
	when      time.Time
	release   string // the digest that the message names
	by        string
}

const sshBegin = "-----BEGIN SSH SIGNATURE-----\n"

var (
	errTwoSignatures = errors.New("it carries two signatures")
	errNoSignature   = errors.New("it is not signed")
	signatureBegin   = regexp.MustCompile(`(?m)^-----BEGIN [A-Z ]*(SIGNATURE|MESSAGE)-----`)
	// personTime ends a committer or tagger line: seconds and zone.
	personTime = regexp.MustCompile(`> ([0-9]{1,12}) [+-][0-9]{4}$`)
)

func parseGitObject(data []byte, tag bool) (*gitObject, error) {
	o := &gitObject{kind: "commit"}
	known := []string{"tree", "parent", "author", "committer", "encoding", "gpgsig", "mergetag"}
	if tag {
		o.kind, known = "tag", []string{"object", "type", "tag", "tagger"}
	}
	head, message, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || bytes.ContainsAny(data, "\x00\r") {
		return nil, fmt.Errorf("%s: it has no message, or bytes that git does not write", o.kind)
	}
	if err := o.readHead(string(head), known); err != nil {
		return nil, fmt.Errorf("%s: %w", o.kind, err)
	}
	if tag {
		if message, ok = o.cutSignature(message); !ok {
			return nil, fmt.Errorf("tag: %w", errTwoSignatures)
		}
	} else if signatureBegin.Match(message) {
		return nil, fmt.Errorf("commit: %w", errTwoSignatures)
	}
	o.signed = append(append(o.signed, '\n', '\n'), message...)
	if len(o.signature) == 0 {
		return nil, fmt.Errorf("%s: %w", o.kind, errNoSignature)
	}
	if len(signatureBegin.FindAll(o.signature, -1)) != 1 {
		return nil, fmt.Errorf("%s: %w", o.kind, errTwoSignatures)
	}
	return o, o.readRelease(string(message))
}

// readHead keeps the header without the signature, as git signs it.
func (o *gitObject) readHead(head string, known []string) error {
	var kept []string
	count := map[string]int{}
	field := ""
	for line := range strings.SplitSeq(head, "\n") {
		rest, continued := strings.CutPrefix(line, " ")
		if !continued {
			field, rest, _ = strings.Cut(line, " ")
			if count[field]++; !slices.Contains(known, field) {
				return fmt.Errorf("the header %.40q is not understood", field)
			}
		}
		switch field {
		case "":
			return errors.New("the header begins in its middle")
		case "gpgsig":
			o.signature = append(append(o.signature, rest...), '\n')
			continue
		case "committer", "tagger":
			if err := o.readTime(line); err != nil {
				return err
			}
		}
		kept = append(kept, line)
	}
	if count["gpgsig"] > 1 {
		return errTwoSignatures
	}
	if count["committer"]+count["tagger"] != 1 {
		return errors.New("it does not say once when it was made")
	}
	o.signed = []byte(strings.Join(kept, "\n"))
	return nil
}

func (o *gitObject) readTime(line string) error {
	m := personTime.FindStringSubmatch(line)
	if m == nil {
		return errors.New("it does not say when it was made")
	}
	seconds, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return err
	}
	o.when = time.Unix(seconds, 0).UTC()
	return nil
}

// cutSignature takes a tag's signature off its message; it is false when there are several.
func (o *gitObject) cutSignature(message []byte) ([]byte, bool) {
	at := signatureBegin.FindAllIndex(message, 2)
	switch len(at) {
	case 0:
		return message, true
	case 1:
		o.signature = message[at[0][0]:]
		return message[:at[0][0]], true
	}
	return nil, false
}

// readRelease finds the one line that names the release.
func (o *gitObject) readRelease(message string) error {
	for line := range strings.SplitSeq(message, "\n") {
		digest, ok := strings.CutPrefix(line, ReleaseTrailer)
		if !ok {
			continue
		}
		if o.release != "" {
			return fmt.Errorf("%s: its message names two releases", o.kind)
		}
		o.release = digest
	}
	if o.release == "" {
		return fmt.Errorf("%s: its message names no release (%ssha256:…)", o.kind, ReleaseTrailer)
	}
	return nil
}
