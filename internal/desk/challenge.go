// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"metald.io/metald/api/v1alpha1"
)

// secretLen is the length of the secret inside a credential, in bytes. A credential holds at most a digest of the EK's
// name algorithm, SHA-256.
const secretLen = 32

// credential is a secret sealed for one TPM.
type credential struct {
	secret []byte
	blob   []byte // TPM2B_ID_OBJECT
	seed   []byte // TPM2B_ENCRYPTED_SECRET
}

// digestEK is how an endorsement key is named everywhere: the sha256 of its TPM2B_PUBLIC in hex.
func digestEK(ek []byte) string {
	sum := sha256.Sum256(ek)
	return hex.EncodeToString(sum[:])
}

// makeCredential is TPM2_MakeCredential in software: only the TPM that holds the private half of ek, and holds a key with
// ak's name beside it, can open the result. Both keys are checked first: the proof is worth something only when the EK
// can do nothing but open credentials and the AK cannot have been made outside a TPM.
func makeCredential(keys v1alpha1.TPMKeys) (credential, error) {
	ek, err := public(keys.EK)
	if err != nil {
		return credential{}, fmt.Errorf("reading the EK: %w", err)
	}
	if err := checkEK(ek); err != nil {
		return credential{}, fmt.Errorf("checking the EK: %w", err)
	}
	ak, err := public(keys.AK)
	if err != nil {
		return credential{}, fmt.Errorf("reading the AK: %w", err)
	}
	if err := checkAK(ak); err != nil {
		return credential{}, fmt.Errorf("checking the AK: %w", err)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return credential{}, fmt.Errorf("naming the AK: %w", err)
	}
	key, err := tpm2.ImportEncapsulationKey(ek) // checks that the point is on its curve
	if err != nil {
		return credential{}, fmt.Errorf("importing the EK: %w", err)
	}
	secret := make([]byte, secretLen)
	_, _ = rand.Read(secret) // never fails since Go 1.24: it would rather end the program
	blob, seed, err := tpm2.CreateCredential(rand.Reader, key, name.Buffer, secret)
	if err != nil {
		return credential{}, fmt.Errorf("making the credential: %w", err)
	}
	return credential{
		secret: secret,
		blob:   tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: blob}),
		seed:   tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: seed}),
	}, nil
}

// public decodes a TPM2B_PUBLIC that has exactly one encoding: a key must not have two digests.
func public(area []byte) (*tpm2.TPMTPublic, error) {
	if len(area) > 1024 {
		return nil, errors.New("longer than 1024 bytes")
	}
	sized, err := tpm2.Unmarshal[tpm2.TPM2BPublic](area)
	if err != nil {
		return nil, err
	}
	key, err := sized.Contents()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(tpm2.New2B(*key)), area) {
		return nil, errors.New("not in canonical form")
	}
	return key, nil
}

// checkEK says whether a key follows the TCG EK Credential Profile's template L-1 (RSA 2048) or L-2 (ECC P-256), in all
// but the key itself.
func checkEK(ek *tpm2.TPMTPublic) error {
	var template tpm2.TPMTPublic
	switch ek.Type {
	case tpm2.TPMAlgRSA:
		template = tpm2.RSAEKTemplate
		modulus, err := ek.Unique.RSA()
		if err != nil {
			return err
		}
		if len(modulus.Buffer) != 256 || modulus.Buffer[0] < 0x80 || modulus.Buffer[255]%2 == 0 {
			return errors.New("its modulus is not an odd number of 2048 bits")
		}
	case tpm2.TPMAlgECC:
		template = tpm2.ECCEKTemplate
	default:
		return fmt.Errorf("its type %#x is neither RSA nor ECC", uint16(ek.Type))
	}
	template.Unique = ek.Unique
	if !bytes.Equal(tpm2.Marshal(template), tpm2.Marshal(*ek)) {
		return errors.New("it does not follow the TCG's template L-1 or L-2")
	}
	return nil
}

// checkAK says whether a key is one that a TPM made, that cannot leave it, and that signs nothing but what the TPM itself
// has made (restricted).
func checkAK(ak *tpm2.TPMTPublic) error {
	a := ak.ObjectAttributes
	for _, must := range []struct {
		name string
		got  bool
		want bool
	}{
		{"restricted", a.Restricted, true},
		{"fixedTPM", a.FixedTPM, true},
		{"fixedParent", a.FixedParent, true},
		{"sensitiveDataOrigin", a.SensitiveDataOrigin, true},
		{"sign", a.SignEncrypt, true},
		{"decrypt", a.Decrypt, false},
	} {
		if must.got != must.want {
			return fmt.Errorf("its attribute %s is %t, not %t", must.name, must.got, must.want)
		}
	}
	if ak.NameAlg != tpm2.TPMAlgSHA256 {
		return fmt.Errorf("its name algorithm %#x is not SHA-256", uint16(ak.NameAlg))
	}
	switch ak.Type {
	case tpm2.TPMAlgECC:
		parameters, err := ak.Parameters.ECCDetail()
		if err != nil {
			return err
		}
		if parameters.CurveID != tpm2.TPMECCNistP256 && parameters.CurveID != tpm2.TPMECCNistP384 {
			return fmt.Errorf("its curve %#x is neither P-256 nor P-384", uint16(parameters.CurveID))
		}
	case tpm2.TPMAlgRSA:
		parameters, err := ak.Parameters.RSADetail()
		if err != nil {
			return err
		}
		if parameters.KeyBits < 2048 {
			return fmt.Errorf("its %d bits are fewer than 2048", parameters.KeyBits)
		}
	default:
		return fmt.Errorf("its type %#x is neither RSA nor ECC", uint16(ak.Type))
	}
	return nil
}
