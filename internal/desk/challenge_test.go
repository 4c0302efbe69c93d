// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/desk/desktest"
)

func TestCredentialOpensInItsTPMOnly(t *testing.T) {
	for name, make := range map[string]func() (*desktest.TPM, error){"ECC": desktest.New, "RSA": desktest.NewRSA} {
		t.Run(name, func(t *testing.T) {
			tpm, err := make()
			if err != nil {
				t.Fatal(err)
			}
			keys, _ := tpm.Keys()
			sealed, err := makeCredential(keys)
			if err != nil {
				t.Fatal(err)
			}
			challenge := v1alpha1.Challenge{CredentialBlob: sealed.blob, EncryptedSecret: sealed.seed}
			got, err := tpm.Activate(challenge)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sealed.secret) || len(got) != secretLen {
				t.Errorf("got secret %x, want %x", got, sealed.secret)
			}

			other, err := make()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := other.Activate(challenge); err == nil {
				t.Errorf("another TPM opened the credential: %x", got)
			}
			tpm.AKPublic = other.AKPublic
			if got, err := tpm.Activate(challenge); err == nil {
				t.Errorf("the TPM opened the credential beside another AK: %x", got)
			}
		})
	}
}

func TestKeysThatProveNothing(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*desktest.TPM)
		want   string
	}{
		{"AK made in software", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.SensitiveDataOrigin = false }, "sensitiveDataOrigin"},
		{"AK signs anything", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.Restricted = false }, "restricted"},
		{"AK can leave its TPM", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.FixedTPM = false }, "fixedTPM"},
		{"AK can change its parent", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.FixedParent = false }, "fixedParent"},
		{"AK does not sign", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.SignEncrypt = false }, "sign"},
		{"AK decrypts", func(t *desktest.TPM) { t.AKPublic.ObjectAttributes.Decrypt = true }, "decrypt"},
		{"AK named by SHA-1", func(t *desktest.TPM) { t.AKPublic.NameAlg = tpm2.TPMAlgSHA1 }, "name algorithm"},
		{"EK that signs", func(t *desktest.TPM) { t.EKPublic.ObjectAttributes.SignEncrypt = true }, "template"},
		{"EK that can leave its TPM", func(t *desktest.TPM) { t.EKPublic.ObjectAttributes.FixedTPM = false }, "template"},
		{"EK with a password", func(t *desktest.TPM) { t.EKPublic.ObjectAttributes.UserWithAuth = true }, "template"},
		{"EK with another policy", func(t *desktest.TPM) { t.EKPublic.AuthPolicy = tpm2.TPM2BDigest{} }, "template"},
		{"EK off its curve", func(t *desktest.TPM) {
			t.EKPublic.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: bytes.Repeat([]byte{7}, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: bytes.Repeat([]byte{7}, 32)},
			})
		}, "EK"},
		{"an AK for an EK", func(t *desktest.TPM) { t.EKPublic = t.AKPublic }, "template"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tpm, err := desktest.New()
			if err != nil {
				t.Fatal(err)
			}
			test.change(tpm)
			keys, _ := tpm.Keys()
			if _, err := makeCredential(keys); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestPublicAreaHasOneEncoding(t *testing.T) {
	tpm, err := desktest.New()
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := tpm.Keys()
	if _, err := public(keys.EK); err != nil {
		t.Fatalf("a plain public area: %v", err)
	}
	for name, area := range map[string][]byte{
		"empty":         nil,
		"cut short":     keys.EK[:len(keys.EK)-1],
		"something on":  append(bytes.Clone(keys.EK), 0),
		"huge":          make([]byte, 4096),
		"size only":     {0, 0},
		"no TPM at all": []byte("-----BEGIN PUBLIC KEY-----"),
	} {
		if _, err := public(area); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzPublicArea(f *testing.F) {
	tpm, err := desktest.New()
	if err != nil {
		f.Fatal(err)
	}
	keys, _ := tpm.Keys()
	f.Add(keys.EK)
	f.Add(keys.AK)
	f.Fuzz(func(t *testing.T, area []byte) {
		// What a machine sends must never stop the daemon, and never seal for a key that is not the EK it looks like.
		_, _ = makeCredential(v1alpha1.TPMKeys{EK: area, AK: keys.AK})
		_, _ = makeCredential(v1alpha1.TPMKeys{EK: keys.EK, AK: area})
	})
}
