// SPDX-License-Identifier: Apache-2.0

// Package tpm proves which machine this is: it shows the TPM's endorsement key beside an attestation key that is new at
// each boot, and opens a credential that only this TPM can open.
//
// It must not know the daemon or what the proof is good for. It leaves nothing behind in the TPM: no persistent key, no
// NV index, no changed authorization.
//
// Start reading at Open, then Keys and Activate.
package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"metald.io/metald/api/v1alpha1"
)

// devices are tried in this order: the first lets others use the TPM meanwhile and cleans up by itself.
var devices = []string{"/dev/tpmrm0", "/dev/tpm0"}

// Where the TCG EK Credential Profile (2.2.1.4) puts the manufacturer's certificates.
const (
	rsaCertificate = tpm2.TPMHandle(0x01C00002)
	eccCertificate = tpm2.TPMHandle(0x01C0000A)
)

// TPM is an open TPM with the keys that were made on it. It is not safe for concurrent use.
type TPM struct {
	dev    transport.TPMCloser
	ek, ak *key
}

type key struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPM2BPublic
}

// Open opens the machine's TPM 2.0. Without one it returns nil and no error.
func Open() (*TPM, error) {
	for _, path := range devices {
		dev, err := linuxtpm.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
		return On(dev), nil
	}
	return nil, nil
}

// On is the TPM behind dev, which it closes in the end.
func On(dev transport.TPMCloser) *TPM { return &TPM{dev: dev} }

// Close forgets the keys and lets go of the device.
func (t *TPM) Close() error {
	var errs []error
	for _, k := range []*key{t.ak, t.ek} {
		if k != nil {
			_, err := tpm2.FlushContext{FlushHandle: k.handle}.Execute(t.dev)
			errs = append(errs, err)
		}
	}
	t.ek, t.ak = nil, nil
	return errors.Join(append(errs, t.dev.Close())...)
}

// Keys makes both keys, once, and shows their public areas.
func (t *TPM) Keys() (v1alpha1.TPMKeys, error) {
	// One machine must always show the same key, so what decides is the TPM's ability and not what worked today. ECC is
	// first because a discrete TPM makes a P-256 key at once and may take half a minute for RSA.
	ecc, err := t.hasP256()
	if err != nil {
		return v1alpha1.TPMKeys{}, err
	}
	return t.keys(ecc)
}

func (t *TPM) keys(ecc bool) (keys v1alpha1.TPMKeys, err error) {
	template, certificate := tpm2.RSAEKTemplate, rsaCertificate
	if ecc {
		template, certificate = tpm2.ECCEKTemplate, eccCertificate
	}
	if t.ek == nil {
		if t.ek, err = t.primary(tpm2.TPMRHEndorsement, template); err != nil {
			return keys, fmt.Errorf("making the endorsement key: %w", err)
		}
	}
	if t.ak == nil {
		// The null hierarchy has a new seed at each reset and no password: the key is new at each boot, and an owner's
		// password that an earlier system has set does not stand in the way.
		if t.ak, err = t.primary(tpm2.TPMRHNull, akTemplate(ecc)); err != nil {
			return keys, fmt.Errorf("making the attestation key: %w", err)
		}
	}
	keys.EK, keys.AK = tpm2.Marshal(t.ek.public), tpm2.Marshal(t.ak.public)
	keys.EKCertificate = t.certificate(certificate)
	return keys, nil
}

// Activate opens a credential (TPM2_ActivateCredential).
func (t *TPM) Activate(challenge v1alpha1.Challenge) ([]byte, error) {
	if t.ek == nil || t.ak == nil {
		return nil, errors.New("no keys were made")
	}
	blob, err := tpm2.Unmarshal[tpm2.TPM2BIDObject](challenge.CredentialBlob)
	if err != nil {
		return nil, fmt.Errorf("reading the credential: %w", err)
	}
	seed, err := tpm2.Unmarshal[tpm2.TPM2BEncryptedSecret](challenge.EncryptedSecret)
	if err != nil {
		return nil, fmt.Errorf("reading the encrypted seed: %w", err)
	}
	response, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.NamedHandle{Handle: t.ak.handle, Name: t.ak.name},
		KeyHandle: tpm2.AuthHandle{
			Handle: t.ek.handle, Name: t.ek.name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsed),
		},
		CredentialBlob: *blob,
		Secret:         *seed,
	}.Execute(t.dev)
	if err != nil {
		return nil, fmt.Errorf("activating the credential: %w", err)
	}
	return response.CertInfo.Buffer, nil
}

// endorsed is the EK's policy in the TCG's templates: who knows the endorsement hierarchy's password may use the key. It
// is empty unless somebody has set it.
func endorsed(dev transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session,
		NonceTPM:      nonce,
	}.Execute(dev)
	if err != nil {
		return fmt.Errorf("using the endorsement hierarchy (is its password set? clear the TPM): %w", err)
	}
	return nil
}

func (t *TPM) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (*key, error) {
	response, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(t.dev)
	if err != nil {
		return nil, err
	}
	return &key{handle: response.ObjectHandle, name: response.Name, public: response.OutPublic}, nil
}

// akTemplate is a key that signs only what the TPM itself has made.
func akTemplate(ecc bool) tpm2.TPMTPublic {
	template := tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
	}
	if ecc {
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		})
		return template
	}
	template.Type = tpm2.TPMAlgRSA
	template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: 2048,
	})
	return template
}

func (t *TPM) hasP256() (bool, error) {
	response, err := tpm2.GetCapability{Capability: tpm2.TPMCapECCCurves, PropertyCount: 64}.Execute(t.dev)
	if err != nil {
		return false, fmt.Errorf("reading the TPM's curves: %w", err)
	}
	curves, err := response.CapabilityData.Data.ECCCurves()
	if err != nil {
		return false, fmt.Errorf("reading the TPM's curves: %w", err)
	}
	return slices.Contains(curves.ECCCurves, tpm2.TPMECCNistP256), nil
}
