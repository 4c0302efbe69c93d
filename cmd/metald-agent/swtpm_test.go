// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/tpm"
	"metald.io/metald/internal/agent/tpm/tpmtest"
)

// These run the same ride with a TPM that nobody here wrote.
func TestAgentAtTheDeskWithARealTPM(t *testing.T) {
	state := t.TempDir()
	got := ride(t, func() (agent.TPM, error) { return tpm.On(tpmtest.Start(t, state)), nil })
	if _, err := hex.DecodeString(got.EKSHA256); err != nil || len(got.EKSHA256) != 64 {
		t.Errorf("got key %q, want a digest", got.EKSHA256)
	}

	// Pinned, the same machine is let in again, and another is not.
	m := &mind{epoch: 4, pinned: got.EKSHA256}
	store, client := door(t, m)
	session, err := knock(t, client, tpm.On(tpmtest.Start(t, state)))
	if err != nil || session.Epoch != 4 {
		t.Errorf("the pinned machine got %+v, %v", session, err)
	}
	_, err = knock(t, client, tpm.On(tpmtest.Start(t, t.TempDir())))
	var refused *agent.RefusedError
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden || refused.Reason != "TPMChanged" {
		t.Errorf("another machine got %v, want TPMChanged", err)
	}
	object, err := store.Inventories().Get(t.Context(), "default", "r1n01")
	if err != nil {
		t.Fatal(err)
	}
	if r := object.Status.Agent.Refusal; r == nil || r.Reason != "TPMChanged" || r.EKSHA256 == got.EKSHA256 {
		t.Errorf("the inventory holds refusal %+v", r)
	}
	// The refusal has not cost the host its session.
	if _, err := client.Next(canceled(t), session.Token, v1alpha1.Message{HostUID: session.Host.UID, Epoch: 4}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the host's session then got %v, want a poll that waits", err)
	}
}

// knock opens a session with a TPM.
func knock(t *testing.T, daemon agent.Daemon, with *tpm.TPM) (v1alpha1.Session, error) {
	t.Helper()
	defer with.Close()
	keys, err := with.Keys()
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := daemon.Hello(t.Context(), v1alpha1.Hello{
		Mode: v1alpha1.OSMode, BootID: "0f0f0f0f-1111-2222-3333-444444444444", MACs: []string{"52:54:00:00:00:01"}, TPM: &keys,
	})
	if err != nil {
		return v1alpha1.Session{}, err
	}
	secret, err := with.Activate(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return daemon.Prove(t.Context(), v1alpha1.Proof{ChallengeID: challenge.ID, Secret: secret})
}

// canceled is a context that ends while a poll waits.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
