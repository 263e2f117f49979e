// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundlestest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1" // what cosign attest logs
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.2"
)

// LogKey is the log's public key, as the stock tools take one.
func (s *Sigstore) LogKey(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.logKey.Public())
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// serveLog answers POST /api/v1/log/entries as Rekor 1 does: what is proposed is checked and made canonical by Rekor's own
// types, the promise is signed as Rekor signs it. Only the tree behind it is not Rekor's: it begins anew with each entry.
func (s *Sigstore) serveLog(t testing.TB, mux *http.ServeMux, at time.Time) {
	t.Helper()
	mux.HandleFunc("POST /api/v1/log/entries", func(w http.ResponseWriter, r *http.Request) {
		body, err := proposed(r.Context(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		leaf := sha256.Sum256(append([]byte{0}, body...))
		uuid := hex.EncodeToString(append(make([]byte, 8), leaf[:]...)) // the tree's number, and the leaf's hash
		promised := map[string]any{
			"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logID": hex.EncodeToString(logID(t, s.logKey)), "logIndex": 0,
		}
		signed := s.logSigns(t, canonical(t, promised))
		promised["verification"] = map[string]any{
			"signedEntryTimestamp": signed,
			"inclusionProof": map[string]any{
				"checkpoint": s.checkpoint(t, leaf[:]), "hashes": []any{}, "logIndex": 0, "rootHash": hex.EncodeToString(leaf[:]), "treeSize": 1,
			},
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", uuid)
		w.Header().Set("Location", "/api/v1/log/entries/"+uuid)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{uuid: promised})
	})
}

// proposed is the canonical form of an entry that somebody proposes. Rekor's types check the signature in it.
func proposed(ctx context.Context, r io.Reader) ([]byte, error) {
	entry, err := models.UnmarshalProposedEntry(io.LimitReader(r, 4<<20), runtime.JSONConsumer())
	if err != nil {
		return nil, err
	}
	checked, err := types.CreateVersionedEntry(entry)
	if err != nil {
		return nil, err
	}
	if checked == nil {
		return nil, errors.New("no entry")
	}
	return types.CanonicalizeEntry(ctx, checked)
}
