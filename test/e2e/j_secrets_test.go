// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What metald was told in confidence is in no file that it wrote, after all that it went through: not in the database, also
// not in pages that nobody uses any more, not in a log.
func TestSecretsAreInNoFile(t *testing.T) {
	words := confidences(t)
	searched := 0
	search := func(path string) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		searched += len(content)
		for _, w := range words {
			if at := bytes.Index(content, w); at >= 0 {
				t.Errorf("%s tells a secret at byte %d", path, at)
			}
		}
	}
	err := filepath.WalkDir(lab.Data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if filepath.Base(path) == "images" {
			return filepath.SkipDir // files by digest, made before any secret was told
		}
		if entry.Type().IsRegular() {
			search(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	search(lab.Log("metald"))
	t.Logf("searched %d KiB", searched>>10)
	if searched < 100<<10 {
		t.Error("that is too little to be metald's data")
	}
}

// confidences are the words that metald was told and must not tell: passwords of BMCs, and the key of the cluster's administrator;
// as they are, and as they lie in a Secret.
func confidences(t *testing.T) (words [][]byte) {
	t.Helper()
	secret := func(text []byte) {
		words = append(words, text, []byte(base64.StdEncoding.EncodeToString(text)))
	}
	for _, name := range append([]string{host}, installed...) {
		password, err := lab.Password(name)
		if err != nil {
			t.Fatal(err)
		}
		secret([]byte(password))
	}
	admin, err := os.ReadFile(lab.AdminKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := bytes.Cut(admin, []byte("client-key-data: "))
	encoded, _, _ := bytes.Cut(rest, []byte("\n"))
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(encoded)))
	if !found || err != nil || len(key) < 100 {
		t.Fatalf("the administrator's kubeconfig has no key in it: %v", err)
	}
	secret(key)
	// In the Secret the whole file is encoded, and the key somewhere within it.
	whole := base64.StdEncoding.EncodeToString(admin)
	from := 4 * (bytes.Index(admin, encoded) / 3) // each four letters are three bytes
	words = append(words, []byte(whole[from+4:from+4*(len(encoded)/3)]))
	return words
}
