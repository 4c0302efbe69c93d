// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// TestDocumentedAuthentication reads the file that docs/api.md gives people to start from.
func TestDocumentedAuthentication(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, block := range strings.Split(string(page), "```") {
		text, ok := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !ok || !strings.Contains(text, "kind: AuthenticationConfiguration") {
			continue
		}
		read++
		if _, err := parseAuthentication("docs/api.md", []byte(text), authenticationcel.NewDefaultCompiler()); err != nil {
			t.Error(err)
		}
	}
	if read != 1 {
		t.Errorf("examples in docs/api.md: got %d, want 1", read)
	}
}
