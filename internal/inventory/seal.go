// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
)

// encryptionFile is the configuration that is made where none is given, in the data directory. It holds the key, so a copy of
// the database alone tells no secret.
const encryptionFile = "encryption.yaml"

// ErrNoKey is wrapped by Open's error where Secrets are stored and the key to them is gone. No new key is made then: it could
// not read them.
var ErrNoKey = errors.New("the encryption key of the stored Secrets is missing")

// secrets is the resource that is always encrypted.
var secrets = schema.GroupResource{Resource: "secrets"}

// sealer encrypts values on their way into the file, bound to their keys: a value that is moved to another key is refused.
type sealer struct {
	transformers map[schema.GroupResource]value.Transformer
	checks       []healthz.HealthChecker
	end          context.CancelFunc
}

// openSealer reads an EncryptionConfiguration (apiserver.config.k8s.io/v1), or makes one with a new AES-256-GCM key where it
// is the data directory's own and no Secret is stored yet.
func openSealer(etcd *clientv3.Client, dir, file string) (*sealer, error) {
	own := file == ""
	if own {
		file = filepath.Join(dir, encryptionFile)
	}
	if _, err := os.Stat(file); own && errors.Is(err, os.ErrNotExist) {
		if err := makeKey(etcd, file); err != nil {
			return nil, err
		}
	}
	ctx, end := context.WithCancel(context.Background()) // a key service's connection lives as long as the store
	config, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, "metald")
	if err != nil {
		end()
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	s := &sealer{transformers: config.Transformers, checks: config.HealthChecks, end: end}
	if err := s.covers(ctx); err != nil {
		end()
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return s, nil
}

func makeKey(etcd *clientv3.Client, file string) error {
	stored, err := etcd.Get(context.Background(), registry+"/core/secrets/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("counting the stored Secrets: %w", err)
	}
	if stored.Count > 0 {
		return fmt.Errorf("%w: %d of them are in the inventory, and %s is not there; put it back from where it is kept", ErrNoKey, stored.Count, file)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	text := fmt.Sprintf(`# How Secrets are encrypted in inventory.db, and the key. Keep a copy of this file apart from copies of the database:
# without it the Secrets in them are lost, with it they can be read. To change keys, put a new one first, start metald,
# which then writes every Secret anew, and remove the old one.
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
      - name: first
        secret: %s
`, base64.StdEncoding.EncodeToString(key))
	if err := renameio.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the encryption key: %w", err)
	}
	return nil
}

// covers refuses a configuration that would store Secrets in the clear. A key service that is away is no reason to refuse.
func (s *sealer) covers(ctx context.Context) error {
	t, ok := s.transformers[secrets]
	if !ok {
		return errors.New("it does not say how to encrypt secrets")
	}
	probe := []byte("a Secret's value")
	sealed, err := t.TransformToStorage(ctx, probe, value.DefaultContext("/probe"))
	if err == nil && bytes.Contains(sealed, probe) {
		return errors.New("its first provider for secrets does not encrypt")
	}
	return nil
}

func (s *sealer) of(resource schema.GroupResource) value.Transformer {
	if t, ok := s.transformers[resource]; ok {
		return t
	}
	return identity.NewEncryptCheckTransformer()
}

// Transformer is what values of a resource go through on their way into the store and out of it. Whoever writes objects
// beside Objects must use it.
func (s *Store) Transformer(resource schema.GroupResource) value.Transformer {
	return s.sealer.of(resource)
}

// SealChecks tell whether the services that hold encryption keys answer; there are none where the key is a file.
func (s *Store) SealChecks() []healthz.HealthChecker { return s.sealer.checks }

// Reseal writes every Secret anew that is not under the newest key, and returns how many there were. It is how a key is
// changed, and does nothing else.
func (s *Store) Reseal(ctx context.Context) (int, error) {
	all, err := s.secrets.List(ctx, "")
	if err != nil {
		return 0, fmt.Errorf("looking for Secrets under old keys: %w", err)
	}
	changed := 0
	for _, secret := range all {
		now, err := s.secrets.Update(ctx, secret.Namespace, secret.Name, func(*corev1.Secret) error { return nil })
		if err != nil {
			return changed, fmt.Errorf("writing Secret %s/%s under the newest key: %w", secret.Namespace, secret.Name, err)
		}
		if now.ResourceVersion != secret.ResourceVersion {
			changed++
		}
	}
	return changed, nil
}
