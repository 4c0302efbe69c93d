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
	var words [][]byte
	for _, name := range append([]string{host}, installed...) {
		password, err := lab.Password(name)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, []byte(password), []byte(base64.StdEncoding.EncodeToString([]byte(password))))
	}
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
				t.Errorf("%s tells a BMC's password at byte %d", path, at)
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
