// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package scaffold

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/bundles"
)

// Role is the list of the trust file that a key goes to.
type Role string

// The roles.
const (
	RoleSigner    Role = "signer"
	RoleFreshness Role = "freshness"
	RoleCollector Role = "collector"
)

// ErrRole is an unknown role.
var ErrRole = errors.New("the role is signer, freshness or collector")

// AddKey adds a public key to a trust file's text, comments kept, and checks the result as a host would.
func AddKey(trust []byte, role Role, name string, publicPEM []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(trust, &doc); err != nil {
		return nil, fmt.Errorf("trust.yaml: %w", err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("trust.yaml: a mapping is wanted at the top")
	}
	top := doc.Content[0]
	var list *yaml.Node
	switch role {
	case RoleSigner:
		list = child(top, "signers", yaml.SequenceNode)
	case RoleCollector:
		list = child(top, "collectors", yaml.SequenceNode)
	case RoleFreshness:
		f := child(top, "freshness", yaml.MappingNode)
		list = child(f, "signers", yaml.SequenceNode)
		if find(f, "maxAge") == nil {
			f.Content = append(f.Content, scalar("maxAge"), scalar("26h"))
		}
	default:
		return nil, ErrRole
	}
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("trust.yaml:%d:%d: a list is wanted here", list.Line, list.Column)
	}
	list.Style = 0
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: strings.TrimSpace(string(publicPEM)) + "\n"}
	list.Content = append(list.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{scalar("name"), scalar(name), scalar("key"), key}})
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, err
	}
	if _, err := bundles.LoadTrust(out.Bytes()); err != nil && (role == RoleSigner || len(trustSigners(top)) > 0) {
		return nil, err
	}
	return out.Bytes(), nil
}

func trustSigners(top *yaml.Node) []*yaml.Node {
	if n := find(top, "signers"); n != nil {
		return n.Content
	}
	return nil
}

func scalar(v string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: v} }

func find(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// child answers the value of key, made when it is missing or null.
func child(m *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	n := find(m, key)
	if n == nil {
		n = &yaml.Node{Kind: kind}
		m.Content = append(m.Content, scalar(key), n)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		*n = yaml.Node{Kind: kind}
	}
	return n
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
