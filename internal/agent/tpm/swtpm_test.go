// SPDX-License-Identifier: Apache-2.0

//go:build long

package tpm

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent/tpm/tpmtest"
)

// seal is TPM2_MakeCredential by the TPM library, for the keys that a TPM shows.
func seal(t *testing.T, keys v1alpha1.TPMKeys, secret []byte) v1alpha1.Challenge {
	t.Helper()
	var areas [2]*tpm2.TPMTPublic
	for i, area := range [][]byte{keys.EK, keys.AK} {
		sized, err := tpm2.Unmarshal[tpm2.TPM2BPublic](area)
		if err != nil {
			t.Fatal(err)
		}
		if areas[i], err = sized.Contents(); err != nil {
			t.Fatal(err)
		}
	}
	key, err := tpm2.ImportEncapsulationKey(areas[0])
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(areas[1])
	if err != nil {
		t.Fatal(err)
	}
	blob, seed, err := tpm2.CreateCredential(bytes.NewReader(bytes.Repeat([]byte{5}, 4096)), key, name.Buffer, secret)
	if err != nil {
		t.Fatal(err)
	}
	return v1alpha1.Challenge{
		CredentialBlob:  tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: blob}),
		EncryptedSecret: tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: seed}),
	}
}

func TestRealTPM(t *testing.T) {
	state := t.TempDir()
	first := On(tpmtest.Start(t, state))
	keys, err := first.Keys()
	if err != nil {
		t.Fatal(err)
	}
	again, err := first.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys, again); diff != "" {
		t.Errorf("the keys differ when asked twice:\n%s", diff)
	}
	secret := bytes.Repeat([]byte{42}, 32)
	got, err := first.Activate(seal(t, keys, secret))
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("activating: got %x, %v", got, err)
	}
	facts, err := first.Facts()
	if err != nil || facts.Version != "2.0" || facts.Manufacturer != "IBM" || facts.Firmware == "" {
		t.Errorf("facts: got %+v, %v", facts, err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}

	// The same TPM after a reset has the same EK and another AK.
	second := On(tpmtest.Start(t, state))
	defer second.Close()
	after, err := second.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(keys.EK, after.EK) {
		t.Error("the endorsement key changed over a reset")
	}
	if bytes.Equal(keys.AK, after.AK) {
		t.Error("the attestation key is the same after a reset")
	}

	// What is sealed for one machine does not open in another, nor for an AK of another boot.
	if got, err := second.Activate(seal(t, keys, secret)); err == nil {
		t.Errorf("a credential for an AK of an earlier boot opened: %x", got)
	}
	other := On(tpmtest.Start(t, t.TempDir()))
	defer other.Close()
	if _, err := other.Keys(); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Activate(seal(t, after, secret)); err == nil {
		t.Errorf("another TPM opened the credential: %x", got)
	}
}

// A TPM without P-256 shows RSA keys.
func TestRealTPMWithRSA(t *testing.T) {
	rsa := On(tpmtest.Start(t, t.TempDir()))
	defer rsa.Close()
	keys, err := rsa.keys(false)
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte{42}, 32)
	if got, err := rsa.Activate(seal(t, keys, secret)); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("activating: got %x, %v", got, err)
	}
}
