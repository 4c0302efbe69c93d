// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"
)

// keyService is a key service of a site: it encrypts under a key that it never gives away.
type keyService struct {
	aead cipher.AEAD
	name string
}

func newKeyService(t *testing.T) *keyService {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &keyService{aead, "site-key-1"}
}

func (k *keyService) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: k.name}, nil
}

func (k *keyService) Encrypt(_ context.Context, _ string, plain []byte) (*service.EncryptResponse, error) {
	return &service.EncryptResponse{Ciphertext: k.aead.Seal(nil, nil, plain, nil), KeyID: k.name}, nil
}

func (k *keyService) Decrypt(_ context.Context, _ string, r *service.DecryptRequest) ([]byte, error) {
	if r.KeyID != k.name {
		return nil, errors.New("no such key")
	}
	return k.aead.Open(nil, nil, r.Ciphertext, nil)
}

// serve answers at socket, with the wire of Kubernetes' own plug-ins, until the test ends or the returned function is called.
func (k *keyService) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	s := service.NewGRPCService(socket, time.Second, k)
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop = func() { s.Close(); <-ended; os.Remove(socket) }
	t.Cleanup(stop)
	return func() { s.Close() }
}

// TestKeyService keeps Secrets under a key that is outside: a copy of the whole data directory tells nothing, and neither does
// the store itself while the key service is away.
func TestKeyService(t *testing.T) {
	runtime, err := os.MkdirTemp("", "kms") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	socket := filepath.Join(runtime, "kms.sock")
	config := filepath.Join(t.TempDir(), "encryption.yaml")
	text := `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: site, endpoint: "unix://` + socket + `", timeout: 2s}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, dir := newKeyService(t), t.TempDir()
	stop := keys.serve(t, socket)

	s := openSealed(t, dir, config)
	if _, err := s.Secrets().Create(t.Context(), credentials("bmc")); err != nil {
		t.Fatal(err)
	}
	if checks := s.SealChecks(); len(checks) != 1 || checks[0].Check(httptest.NewRequest("GET", "/readyz", nil)) != nil {
		t.Errorf("the key service answers and its checks (%d) say otherwise", len(checks))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if files := told(t, dir); files != nil {
		t.Errorf("the password is in %v", files)
	}
	if _, err := os.Stat(filepath.Join(dir, "encryption.yaml")); !os.IsNotExist(err) {
		t.Errorf("a key was made beside the key service's: %v", err)
	}

	stop()
	os.Remove(socket)
	s = openSealed(t, dir, config)
	if got, err := s.Secrets().Get(t.Context(), "default", "bmc"); err == nil {
		t.Errorf("without the key service the Secret could be read: %q", got.Data["password"])
	}
	if err := s.Records("leases").Put(t.Context(), "a", []byte("b")); err != nil {
		t.Errorf("what is no Secret waits for the key service: %v", err)
	}
	if checks := s.SealChecks(); len(checks) != 1 || checks[0].Check(httptest.NewRequest("GET", "/readyz", nil)) == nil {
		t.Error("the key service is away and the checks say nothing")
	}

	keys.serve(t, socket)
	var password []byte
	for range 150 { // the connection is made anew by itself; whoever asks for readiness hastens it
		for _, check := range s.SealChecks() {
			_ = check.Check(httptest.NewRequest("GET", "/readyz", nil))
		}
		if got, err := s.Secrets().Get(t.Context(), "default", "bmc"); err == nil {
			password = got.Data["password"]
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if string(password) != canary {
		t.Errorf("after the key service came back: read %q", password)
	}
}
