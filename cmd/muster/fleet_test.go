// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/fleet/statusref"
)

// The stories of roll and collect. "host-report" stands for an agent: real key, real push, told state.
func TestFleetStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "fleet"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"muster":        musterInProcess,
			"host-report":   hostReport,
			"collector-key": collectorKey,
			"env-subst": func(ts *testscript.TestScript, _ bool, args []string) {
				text := strings.ReplaceAll(ts.ReadFile(args[0]), "$WORK", ts.Getenv("WORK"))
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
			},
		},
	})
}

// musterInProcess runs a verb as main does.
func musterInProcess(ts *testscript.TestScript, neg bool, args []string) {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(ts.Stdout())
	root.SetErr(ts.Stderr())
	err := root.ExecuteContext(context.Background())
	if err != nil {
		printError(ts.Stderr(), err)
	}
	if (err != nil) != neg {
		ts.Fatalf("muster %s: %v", strings.Join(args, " "), err)
	}
}

// hostReport REPO ID STATE [CONDITION]: the key and the spool lie in $WORK/ID, and $WORK/ID.line enrols it.
func hostReport(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o700))
	key, err := fleet.LoadOrCreateHostKey(filepath.Join(dir, "host.key"))
	ts.Check(err)
	ts.Check(os.WriteFile(dir+".line", []byte(key.AllowedLine(args[1])), 0o600))
	pub := statusref.NewPublisher(statusref.PublisherConfig{
		Remote: statusref.Remote{URL: args[0]}, Dir: filepath.Join(dir, "report"), Key: key, Now: time.Now,
	})
	r := fleet.Report{
		Fleet: "lab", Host: args[1], Time: time.Now(), Mode: enforce.ModeEnforce, State: fleet.HostState(args[2]), Backend: "bpflsm",
		Releases: []fleet.ReportRelease{{Level: "enforce", Name: "lab", Channel: "stable", Epoch: 1, Sequence: 4}},
	}
	if len(args) > 3 {
		r.Conditions = []fleet.Condition{{Type: args[3], Since: time.Now(), Error: "rollback"}}
	}
	if err := pub.Report(context.Background(), &r); (err != nil) != neg {
		ts.Fatalf("host-report: %v", err)
	}
}

// collectorKey FILE: a key in PEM, and a trust file that names it beside it.
func collectorKey(ts *testscript.TestScript, _ bool, args []string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	pub, err := x509.MarshalPKIXPublicKey(private.Public())
	ts.Check(err)
	pubPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), key, 0o600))
	trust := fmt.Sprintf("fleet: lab\nchannel: stable\nversion: 1\nepoch: 1\nthreshold: {audit: 1, enforce: 1, trust: 1}\n"+
		"signers: [{name: secops, key: %[1]q}]\ncollectors: [{name: roll-1, key: %[1]q}]\n", pubPEM)
	ts.Check(os.WriteFile(ts.MkAbs(args[0])+".trust.yaml", []byte(trust), 0o600))
}
