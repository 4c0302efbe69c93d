// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

func newAuthority(commonName string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := x509.Certificate{
		SerialNumber: serial(),
		// The number tells two authorities of one name apart, which a verifier would otherwise take for one.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s %08x", commonName, serial().Uint64()&0xffffffff)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return sign(&template, &template, key, key)
}

func (a *authority) issue(l leaf, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	end := now.Add(cmp.Or(l.life, leafLife))
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template := x509.Certificate{
		SerialNumber:          serial(),
		Subject:               l.subject,
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{l.usage},
		BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = l.split()
	return sign(&template, a.cert, key, a.key)
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: keyDER}), nil
}

// serial is 127 random bits, as RFC 5280 section 4.1.2.2 allows up to 20 positive octets.
func serial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails: crypto/rand ends the program itself
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw)
}

// readPair fails with fs.ErrNotExist only where neither file is there: half a pair is damage, not a first start.
func readPair(dir, name string) (certPEM, keyPEM []byte, err error) {
	certPEM, certErr := os.ReadFile(filepath.Join(dir, name+".crt"))
	keyPEM, keyErr := os.ReadFile(filepath.Join(dir, name+".key"))
	switch {
	case certErr == nil && keyErr == nil:
		return certPEM, keyPEM, nil
	case errors.Is(certErr, fs.ErrNotExist) && keyErr == nil:
		// The key is written first, so a crash between the two leaves a key alone: as good as nothing, nobody saw it.
		return nil, nil, certErr
	case errors.Is(keyErr, fs.ErrNotExist) && certErr == nil:
		return nil, nil, fmt.Errorf("%s.crt is there without its key", name)
	case certErr != nil:
		return nil, nil, certErr
	}
	return nil, nil, keyErr
}

func writePair(dir, name string, certPEM, keyPEM []byte) error {
	if err := renameio.WriteFile(filepath.Join(dir, name+".key"), keyPEM, 0o600); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, name+".crt"), certPEM, 0o644)
}

func parsePair(certPEM, keyPEM []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certDER, _ := pem.Decode(certPEM)
	if certDER == nil || certDER.Type != certBlock {
		return nil, nil, errors.New("no certificate in it")
	}
	cert, err := x509.ParseCertificate(certDER.Bytes)
	if err != nil {
		return nil, nil, err
	}
	keyDER, _ := pem.Decode(keyPEM)
	if keyDER == nil || keyDER.Type != keyBlock {
		return nil, nil, errors.New("no key in it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("certificate and key do not belong together")
	}
	return cert, key, nil
}
