// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metald.io/metald/internal/inventory"
)

// canary is what must not be found in any file.
const canary = "canary-4d2c1f0b-of-a-BMC"

func credentials(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, StringData: map[string]string{"password": canary}}
}

func openSealed(t *testing.T, dir, encryption string) *inventory.Store {
	t.Helper()
	s, err := inventory.Open(inventory.KeptIn(dir, inventory.Options{NoSync: true, Encryption: encryption}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// told lists the files of dir that hold the canary, plain or as JSON has it.
func told(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))} {
			if bytes.Contains(content, []byte(form)) {
				files = append(files, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSecretsAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := openSealed(t, dir, "")
	// Old values stay in pages that nobody uses any more, so the first write must be sealed already.
	for i := range 50 {
		if _, err := s.Secrets().Create(t.Context(), credentials(fmt.Sprintf("bmc-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 25 {
		if err := s.Secrets().Delete(t.Context(), "default", fmt.Sprintf("bmc-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Secrets().Get(t.Context(), "default", "bmc-30")
	if err != nil || string(got.Data["password"]) != canary {
		t.Errorf("read back %q, %v", got.Data["password"], err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if files := told(t, dir); len(files) > 0 {
		t.Errorf("the password can be read in %q", files)
	}
	info, err := os.Stat(filepath.Join(dir, "encryption.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file is %v, %v; want it for its owner alone", info, err)
	}
	again := openSealed(t, dir, "")
	if got, err := again.Secrets().Get(t.Context(), "default", "bmc-30"); err != nil || string(got.Data["password"]) != canary {
		t.Errorf("after opening again: %q, %v", got, err)
	}
}

func TestMovedSecretIsRefused(t *testing.T) {
	s := openSealed(t, t.TempDir(), "")
	if _, err := s.Secrets().Create(t.Context(), credentials("mine")); err != nil {
		t.Fatal(err)
	}
	from, err := s.Etcd().Get(t.Context(), "/registry/core/secrets/default/mine")
	if err != nil || len(from.Kvs) != 1 {
		t.Fatal(from, err)
	}
	if _, err := s.Etcd().Put(t.Context(), "/registry/core/secrets/tenant/theirs", string(from.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Secrets().Get(t.Context(), "tenant", "theirs"); err == nil {
		t.Errorf("a value that was moved to another key was read: %v", got.Data)
	}
}

func TestLostKeyIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	s := openSealed(t, dir, "")
	if _, err := s.Secrets().Create(t.Context(), credentials("bmc")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "encryption.yaml")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	_, err := inventory.Open(inventory.KeptIn(dir, inventory.Options{NoSync: true}))
	if !errors.Is(err, inventory.ErrNoKey) || !strings.Contains(err.Error(), key) {
		t.Errorf("without its key: %v, want ErrNoKey and the file's name", err)
	}
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new key was made: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if got, err := openSealed(t, dir, "").Secrets().Get(t.Context(), "default", "bmc"); err != nil || string(got.Data["password"]) != canary {
		t.Errorf("with its key again: %v, %v", got, err)
	}
}

// configuration is an EncryptionConfiguration with these providers.
func configuration(t *testing.T, resource string, providers ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [" + resource + "]\n  providers:\n"
	for _, p := range providers {
		text += "  - " + p + "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func aesConfig(name string) string {
	return fmt.Sprintf("aesgcm: {keys: [{name: %s, secret: %s}]}", name, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(name)[:1], 32)))
}

func TestKeyIsChanged(t *testing.T) {
	dir := t.TempDir()
	s := openSealed(t, dir, configuration(t, "secrets", aesConfig("old")))
	for _, name := range []string{"a", "b"} {
		if _, err := s.Secrets().Create(t.Context(), credentials(name)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Reseal(t.Context()); err != nil || n != 0 {
		t.Errorf("nothing to do: %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openSealed(t, dir, configuration(t, "secrets", aesConfig("new"), aesConfig("old")))
	if n, err := s.Reseal(t.Context()); err != nil || n != 2 {
		t.Errorf("Reseal() = %d, %v; want 2", n, err)
	}
	rows, err := s.Etcd().Get(t.Context(), "/registry/core/secrets/", clientv3.WithPrefix())
	if err != nil || len(rows.Kvs) != 2 {
		t.Fatal(rows, err)
	}
	for _, kv := range rows.Kvs {
		if !bytes.HasPrefix(kv.Value, []byte("k8s:enc:aesgcm:v1:new:")) {
			t.Errorf("%s begins %.30q, want the new key", kv.Key, kv.Value)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openSealed(t, dir, configuration(t, "secrets", aesConfig("new")))
	if got, err := s.Secrets().Get(t.Context(), "default", "b"); err != nil || string(got.Data["password"]) != canary {
		t.Errorf("without the old key: %v, %v", got, err)
	}
}

func TestPlainSecretsAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"in the clear":     {configuration(t, "secrets", "identity: {}"), "does not encrypt"},
		"in the clear now": {configuration(t, "secrets", "identity: {}", aesConfig("a")), "does not encrypt"},
		"others only":      {configuration(t, "configmaps", aesConfig("a")), "does not say how to encrypt secrets"},
		"no such file":     {"/nonexistent/encryption.yaml", "no such file"},
		"a short key":      {configuration(t, "secrets", "aesgcm: {keys: [{name: a, secret: YQ==}]}"), "secret is not of the expected length"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := inventory.Open(inventory.KeptIn(t.TempDir(), inventory.Options{NoSync: true, Encryption: c.file}))
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.file) {
				t.Errorf("got %v, want %q and the file's name", err, c.want)
			}
		})
	}
}

func TestTransformerOfOthers(t *testing.T) {
	s := openSealed(t, t.TempDir(), "")
	if s.Transformer(schema.GroupResource{Resource: "secrets"}) == s.Transformer(schema.GroupResource{Resource: "configmaps"}) {
		t.Error("Secrets and ConfigMaps go the same way")
	}
}
