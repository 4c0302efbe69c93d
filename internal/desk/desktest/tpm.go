// SPDX-License-Identifier: Apache-2.0

// Package desktest holds a TPM in software, as far as credential activation goes: it shows an endorsement key and an
// attestation key and opens what TPM2_MakeCredential seals (TPM 2.0 Library, part 1, "Credential Protection"). It lets a
// test or a simulation run the agents' door without a TPM; it protects nothing.
//
// It must not be used outside tests, and it shares no code with the door for what it computes, so that a mistake there
// does not hide itself.
//
// Start reading at New.
package desktest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"metald.io/metald/api/v1alpha1"
)

// TPM is a machine's TPM. EKPublic and AKPublic may be changed before they are shown.
type TPM struct {
	EKPublic, AKPublic tpm2.TPMTPublic

	ecc *ecdh.PrivateKey
	rsa *rsa.PrivateKey
}

// New makes a TPM with an ECC endorsement key (template L-2).
func New() (*TPM, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &TPM{ecc: key, EKPublic: tpm2.ECCEKTemplate}
	t.EKPublic.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point(key.PublicKey()))
	return t, t.newAK()
}

// NewRSA makes a TPM with an RSA endorsement key (template L-1).
func NewRSA() (*TPM, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	t := &TPM{rsa: key, EKPublic: tpm2.RSAEKTemplate}
	t.EKPublic.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
	return t, t.newAK()
}

// newAK makes a public area such as a TPM gives for a restricted signing key. Nothing is ever signed with it here.
func (t *TPM) newAK() error {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	t.AKPublic = tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point(key.PublicKey())),
	}
	return nil
}

// Keys shows the public areas.
func (t *TPM) Keys() (v1alpha1.TPMKeys, error) {
	return v1alpha1.TPMKeys{EK: tpm2.Marshal(tpm2.New2B(t.EKPublic)), AK: tpm2.Marshal(tpm2.New2B(t.AKPublic))}, nil
}

// Close does nothing: this TPM has no device.
func (t *TPM) Close() error { return nil }

// Activate opens a credential, or says that it is not sealed for this EK and this AK.
func (t *TPM) Activate(sealed v1alpha1.Challenge) ([]byte, error) {
	blob, err := tpm2.Unmarshal[tpm2.TPM2BIDObject](sealed.CredentialBlob)
	if err != nil {
		return nil, fmt.Errorf("reading the credential: %w", err)
	}
	encrypted, err := tpm2.Unmarshal[tpm2.TPM2BEncryptedSecret](sealed.EncryptedSecret)
	if err != nil {
		return nil, fmt.Errorf("reading the encrypted seed: %w", err)
	}
	seed, err := t.seed(encrypted.Buffer)
	if err != nil {
		return nil, fmt.Errorf("decrypting the seed: %w", err)
	}
	if len(blob.Buffer) < 2+sha256.Size {
		return nil, errors.New("the credential is too short")
	}
	sum, body := blob.Buffer[2:2+sha256.Size], blob.Buffer[2+sha256.Size:]
	area := tpm2.Marshal(t.AKPublic)
	digest := sha256.Sum256(area)
	name := append([]byte{0x00, 0x0b}, digest[:]...) // TPM_ALG_SHA256, then the digest of the public area

	mac := hmac.New(sha256.New, kdfa(seed, "INTEGRITY", nil, nil, 256))
	mac.Write(body)
	mac.Write(name)
	if !hmac.Equal(mac.Sum(nil), sum) {
		return nil, errors.New("the credential is not for this attestation key")
	}
	block, err := aes.NewCipher(kdfa(seed, "STORAGE", name, nil, 128))
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(body))
	//lint:ignore SA1019 the TPM's storage cipher is CFB; the HMAC above is its integrity
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, body)
	secret, err := tpm2.Unmarshal[tpm2.TPM2BDigest](plain)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	return secret.Buffer, nil
}

// seed undoes the key's way to wrap a seed: OAEP for RSA, one-pass Diffie-Hellman for ECC.
func (t *TPM) seed(encrypted []byte) ([]byte, error) {
	if t.rsa != nil {
		return rsa.DecryptOAEP(sha256.New(), nil, t.rsa, encrypted, []byte("IDENTITY\x00"))
	}
	theirs, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](encrypted)
	if err != nil {
		return nil, err
	}
	x, y := pad(theirs.X.Buffer), pad(theirs.Y.Buffer)
	public, err := ecdh.P256().NewPublicKey(bytes.Join([][]byte{{4}, x, y}, nil))
	if err != nil {
		return nil, err
	}
	z, err := t.ecc.ECDH(public)
	if err != nil {
		return nil, err
	}
	own := t.ecc.PublicKey().Bytes()[1:33]
	// KDFe (part 1, 11.4.10.3) for 256 bits is one hash: counter, Z, label with its zero, both x coordinates.
	sum := sha256.Sum256(bytes.Join([][]byte{{0, 0, 0, 1}, z, []byte("IDENTITY\x00"), x, own}, nil))
	return sum[:], nil
}

// kdfa is KDFa of part 1, 11.4.10.2, for at most 256 bits.
func kdfa(key []byte, label string, u, v []byte, bits int) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte{0, 0, 0, 1})
	mac.Write([]byte(label + "\x00"))
	mac.Write(u)
	mac.Write(v)
	mac.Write([]byte{0, 0, byte(bits >> 8), byte(bits)})
	return mac.Sum(nil)[:bits/8]
}

func point(key *ecdh.PublicKey) *tpm2.TPMSECCPoint {
	raw := key.Bytes() // 4, x, y
	return &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:65]}}
}

// pad makes a coordinate 32 bytes long again.
func pad(coordinate []byte) []byte {
	return append(make([]byte, max(0, 32-len(coordinate))), coordinate...)
}
