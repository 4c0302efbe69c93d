// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// The files of a key, in the directory that EnsureKey is given.
const (
	KeyFile    = "audit.key" // PKCS #8 in PEM; the daemon's alone
	PublicFile = "audit.pub" // PKIX in PEM; for whoever verifies
)

// Key signs checkpoints. It is made once, and what a site has checkpoints of stands and falls with it.
type Key struct {
	private ed25519.PrivateKey
	digests []byte // the key of keyed digests
}

// EnsureKey reads the key in dir, or makes it, and sees that its public half lies beside it. A key that cannot be read is an
// error: a new one in its place would make every earlier checkpoint worthless.
func EnsureKey(dir string) (*Key, error) {
	path := filepath.Join(dir, KeyFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the audit key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the audit key %s: %w", path, err)
	}
	public, err := encodePublic(key.Public())
	if err != nil {
		return nil, err
	}
	path = filepath.Join(dir, PublicFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, public) {
		return key, nil
	}
	if err := renameio.WriteFile(path, public, 0o644); err != nil {
		return nil, fmt.Errorf("writing the public audit key: %w", err)
	}
	return key, nil
}

func makeKey(path string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return data, renameio.WriteFile(path, data, 0o600)
}

func parseKey(data []byte) (*Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, not an Ed25519 key", parsed)
	}
	return newKey(private)
}

func newKey(private ed25519.PrivateKey) (*Key, error) {
	digests, err := hkdf.Key(sha256.New, private.Seed(), nil, "metald audit digests of secrets", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of digests: %w", err)
	}
	return &Key{private, digests}, nil
}

// Public is what checkpoints are verified with.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Origin names the record of this key: no two have the same.
func (k *Key) Origin() string { return OriginOf(k.Public()) }

// OriginOf is the name of the record whose checkpoints a key verifies.
func OriginOf(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "metald/" + hex.EncodeToString(sum[:8])
}

// Checkpoint signs a place in the record.
func (k *Key) Checkpoint(seq uint64, hash Hash, now time.Time) Checkpoint {
	c := Checkpoint{Origin: k.Origin(), Seq: seq, Hash: hash, Time: now.UTC().Truncate(time.Microsecond)}
	c.Signature = ed25519.Sign(k.private, c.message())
	return c
}

// Digest of bytes that hold a secret: without the key nobody can try passwords against it.
func (k *Key) Digest(data []byte) string {
	h := hmac.New(sha256.New, k.digests)
	h.Write(data)
	return "hmac-sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Digest of bytes that may be known.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func encodePublic(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the public audit key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublicKeys reads the public keys of a file, one or more in PEM.
func ParsePublicKeys(data []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("reading public keys: there is no PEM block")
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading public keys: %w", err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("reading public keys: it is a %T, not an Ed25519 key", parsed)
		}
		keys, data = append(keys, key), rest
	}
	if len(keys) == 0 {
		return nil, errors.New("reading public keys: there is none")
	}
	return keys, nil
}
